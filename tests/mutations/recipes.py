"""Published estimators."""

TESTS = ["test_recipes.py"]

MUTATIONS = [
    (
        "recipes/exact.py",
        "log_prob_target, prefix, continuation",
        "log_prob_target, 1 + 0 * prefix, continuation",
    ),
    (
        "recipes/exact.py",
        "returns.per_decision(rewards, prefix,",
        "returns.per_decision(rewards, ratios,",
    ),
    ("recipes/exact.py", "from_start * ratio", "ratio"),
    ("recipes/exact.py", "from_start * whole", "whole"),
]
