"""Advantages and value targets."""

TESTS = ["test_core_*.py", "test_recipes.py"]

MUTATIONS = [
    ("core/advantages/traces.py", "discount * trace_lambda", "trace_lambda"),
    ("core/advantages/traces.py", "c = trace_lambda * _truncated", "c = _truncated"),
    ("core/advantages/traces.py", '"max_c", max_c)', '"max_c", max_rho)'),
    ("core/advantages/traces.py", "delta = rho * (", "delta = ("),
    ("core/advantages/traces.py", "targets = v + linear_recurrence", "targets = linear_recurrence"),
    ("core/advantages/traces.py", "discount * c, segments", "c, segments"),
    (
        "core/advantages/traces.py",
        "_action_values(rewards, targets, bootstrap",
        "_action_values(rewards, values, bootstrap",
    ),
    (
        "core/advantages/traces.py",
        "rho_advantage * (action_values - v)",
        "rho * (action_values - v)",
    ),
    ("core/advantages/traces.py", "@torch.no_grad()\ndef vtrace", "def vtrace"),
    ("core/advantages/traces.py", "@torch.no_grad()\ndef gae", "def gae"),
]
