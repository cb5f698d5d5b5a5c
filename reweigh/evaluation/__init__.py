"""Off-policy evaluation: what a policy is worth, from episodes that another policy sampled."""
