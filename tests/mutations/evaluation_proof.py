"""Changes that the exact problems, and other systems' formulas, must notice."""

TESTS = ["test_evaluation_peers.py", "test_evaluation_problems.py"]
VALUES = "recipes/values.py"
INTERVALS = "evaluation/intervals.py"

MUTATIONS = [
    (VALUES, "weigh(sample.log_trajectory, sample.returns)", "sample.returns"),
    (
        VALUES,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_ratios, sample.discounted_rewards)",
    ),
    (
        VALUES,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_prefix, sample.rewards)",
    ),
    (
        VALUES,
        "Weighted(sample.discounted_rewards, sample.log_prefix, sample.segments)",
        "Weighted(sample.discounted_rewards, sample.log_ratios, sample.segments)",
    ),
    (
        VALUES,
        "weigh(with_gradient_of(whole, bounded), sample.returns - base)",
        "weigh(with_gradient_of(whole, bounded), sample.returns)",
    ),
    # Episodes that have ended leave the normaliser.
    (
        "core/weights/normalise.py",
        "_log_add(alive.reshape(groups, times), since)",
        "alive.reshape(groups, times)",
    ),
    # Their part of the error is forgotten.
    ("core/terms.py", "alive - _missed(", "alive - 0 * _missed("),
    (VALUES, "sample.discount * following", "following"),
    (VALUES, "sample.discount_from_start * left", "left"),
    (
        VALUES,
        "Terms(_first(values, sample), weighted",
        "Terms(0 * _first(values, sample), weighted",
    ),
    ("core/returns.py", "unexplained - segments.as_float64", "unexplained + segments.as_float64"),
    (
        "evaluation/methods.py",
        "is_source.double().mean(1)",
        "is_source.double().mean(1) ** 2",
    ),
    ("evaluation/state_marginal.py", "(scale[time] * weights", "(weights"),
    (
        "evaluation/state_marginal.py",
        "alive = segments.fill(log_m.exp()) / len(segments)",
        "alive = segments.fill(torch.ones_like(log_m)) / len(segments)",
    ),
    (INTERVALS, "(1 + level) / 2", "level"),
    (
        INTERVALS,
        "math.log(2 / (1 - level)) / (2 * len(evidence.influence))",
        "math.log(2 / (1 - level)) / 2 * len(evidence.influence)",
    ),
    ("evaluation/resampling.py", "weights = times_drawn @ shares", "weights = shares.sum(0)"),
]
