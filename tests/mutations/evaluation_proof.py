"""Changes that the exact problems, and other systems' formulas, must notice."""

TESTS = ["test_evaluation_peers.py", "test_evaluation_problems.py"]
IMPORTANCE = "evaluation/importance.py"
ROBUST = "evaluation/doubly_robust.py"
INTERVALS = "evaluation/intervals.py"

MUTATIONS = [
    (IMPORTANCE, "weigh(sample.log_trajectory, sample.returns)", "sample.returns"),
    (
        IMPORTANCE,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_ratios, sample.discounted_rewards)",
    ),
    (
        IMPORTANCE,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_prefix, sample.rewards)",
    ),
    (
        IMPORTANCE,
        "Weighted(sample.discounted_rewards, sample.log_prefix, sample.segments)",
        "Weighted(sample.discounted_rewards, sample.log_ratios, sample.segments)",
    ),
    (
        IMPORTANCE,
        "weigh(bounded.log_weights, sample.returns - lowest_return)",
        "weigh(bounded.log_weights, sample.returns)",
    ),
    # Episodes that have ended leave the normaliser.
    (
        "core/weights/normalise.py",
        "_log_add(alive.reshape(groups, times), since)",
        "alive.reshape(groups, times)",
    ),
    # Their part of the error is forgotten.
    ("core/terms.py", "alive - _missed(", "alive - 0 * _missed("),
    (ROBUST, "left = left + sample.discount * segments.next", "left = left + segments.next"),
    (
        ROBUST,
        "left = left * discount_from_start(segments, discount=sample.discount)",
        "left = left * 1.0",
    ),
    (ROBUST, "Terms(_first(predicted.values, sample), weighted", "Terms(nothing, weighted"),
    ("core/returns.py", "unexplained - segments.as_float64", "unexplained + segments.as_float64"),
    (
        "evaluation/mixtures.py",
        "proportions = source.double().mean(1)",
        "proportions = source.double().mean(1) ** 2",
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
    ("evaluation/bootstrap.py", "weights = times_drawn @ shares", "weights = shares.sum(0)"),
]
