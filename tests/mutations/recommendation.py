"""Which weight is recommended for a batch."""

TESTS = ["test_recommend.py"]

FILE = "recommendation.py"

MUTATIONS = [
    (FILE, "math.sqrt(len(segments)) / 2", "math.sqrt(len(segments)) * 5"),
    (FILE, "max(1.0, math.sqrt", "max(0.0, math.sqrt"),
    (FILE, "setup += _TRUNCATE", "_ = _TRUNCATE"),
    (FILE, "FRESH = 0.01", "FRESH = 1.0"),
    (FILE, "LEAST_ESS = 10.0", "LEAST_ESS = 0.0"),
    (FILE, "min(LEAST_ESS, len(segments) / 10)", "LEAST_ESS"),
    (FILE, " or reading.mean < LEAST_MEAN", ""),
    (FILE, "and near >= NEAR_STEP_ESS", "and near >= 0"),
    (FILE, "and len(segments) >= MANY", ""),
    (FILE, "and not critic:", ":"),
    (FILE, "if segments.existing.numel() == 0:", "if False:"),
    (FILE, "if segments.has_fragments:", "if False:"),
    (FILE, 'recipe = "impala" if critic else "step"', 'recipe = "step"'),
    (FILE, "segments.previous(log_weights,", "0 * log_weights + (log_weights,"),
    (FILE, "rewards + discount * segments.next(values, bootstrap) - taken", "rewards - taken"),
    (FILE, "away > STANDARD_ERRORS * steps", "away > 1e9 * steps"),
    (FILE, "-away > STANDARD_ERRORS * steps", "-away > 1e9 * steps"),
    (FILE, "and steps.ess_share > NEAR_STEP_ESS", ""),
    (FILE, "abs(steps.mean - 1) > 1e-3", "True"),
    (FILE, "if over == 0:", "if over >= 0:"),
    (FILE, "weights.balance_heuristic(", "weights.balance_heuristic_trajectory("),
]
