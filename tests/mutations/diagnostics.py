"""Weight health."""

TESTS = ["test_core_*.py"]

MUTATIONS = [
    (
        "core/diagnostics/summary.py",
        "weights.sum().square() / weights.square().sum()",
        "weights.sum() / weights.square().sum()",
    ),
    ("core/diagnostics/summary.py", "(log_weights - highest).exp()", "log_weights.exp()"),
    (
        "core/diagnostics/summary.py",
        "log_sum_by_time(2 * log_weights",
        "log_sum_by_time(log_weights",
    ),
    ("core/diagnostics/summary.py", "(log_ratios.expm1() - log_ratios)", "(-log_ratios)"),
    (
        "core/diagnostics/summary.py",
        "(log_ratios.expm1() - log_ratios)",
        "((-log_ratios).expm1() + log_ratios)",
    ),
    ("core/diagnostics/summary.py", "segments.inside.sum()", "torch.tensor(segments.size)"),
]
