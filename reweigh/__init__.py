"""Train policies from trajectories that older policies sampled, by importance weighting."""
