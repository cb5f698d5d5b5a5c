"""Which weight is recommended for a batch."""

TESTS = ["test_recommend.py"]

FILE = "recommendation.py"

MUTATIONS = [
    (FILE, "max(1.0, math.sqrt(len(sample)) / 2)", "max(1.0, math.sqrt(len(sample)) * 5)"),
    (FILE, "max(1.0, math.sqrt", "max(0.0, math.sqrt"),
    (FILE, "truncated(whole, maximum=maximum)", "whole"),
    (FILE, "maximum={maximum:.4g})\\n", "maximum=1e9)\\n"),
    (FILE, "FRESH = 0.01", "FRESH = 1.0"),
    (FILE, "LEAST_ESS = 10.0", "LEAST_ESS = 0.0"),
    (FILE, "min(LEAST_ESS, len(sample) / 10)", "LEAST_ESS"),
    (FILE, " or reading.mean < LEAST_MEAN", ""),
    (FILE, "and near >= NEAR_STEP_ESS", "and near >= 0"),
    (FILE, "and len(sample) >= MANY", ""),
    (FILE, "and not critic:", ":"),
    (FILE, "if segments.existing.numel() == 0:", "if False:"),
    (FILE, "if segments.has_fragments:", "if False:"),
    (FILE, "actor_critic.impala if critic else scores.step", "scores.step"),
    (FILE, '"bootstrap=bootstrap"', '""'),
    (FILE, "values.doubly_robust if critic else values.per_decision", "values.per_decision"),
    (FILE, "excess > STANDARD_ERRORS * steps", "excess > 1e9 * steps"),
    (FILE, "-excess > STANDARD_ERRORS * steps", "-excess > 1e9 * steps"),
    (FILE, "and steps.ess_share > NEAR_STEP_ESS", ""),
    (FILE, "abs(steps.mean - 1) > 1e-3", "True"),
    (FILE, "if over == 0:", "if over >= 0:"),
    (FILE, "if torch.equal(sample.log_prefix", "if True or torch.equal(sample.log_prefix"),
    (FILE, "bool((log_ratios == 0).all())", "False"),
    (
        FILE,
        "diagnostics.episode_health(sample.log_prefix",
        "diagnostics.episode_health(sample.log_ratios",
    ),
]
