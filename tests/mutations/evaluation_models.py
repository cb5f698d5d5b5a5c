"""Estimators that model something: critics, what corrects them, state marginals, mixtures."""

TESTS = [
    "test_evaluation_critics.py",
    "test_evaluation_robust.py",
    "test_evaluation_marginal.py",
    "test_core_marginal_kernel.py",
]

CRITICS = "evaluation/critics.py"
REGRESSION = "evaluation/regression.py"
FEATURES = "evaluation/features.py"
DRAWING = "evaluation/drawing.py"
LOGGED = "evaluation/logged.py"
ROBUST = "recipes/values.py"
MARGINAL = "evaluation/state_marginal.py"
RESAMPLING = "evaluation/resampling.py"
METHODS = "evaluation/methods.py"

MUTATIONS = [
    (CRITICS, "log.select((fold != k).nonzero().squeeze(1)), log", "log, log"),
    (CRITICS, "steps_of(log.segments, mine)]", "log.segments.existing[: len(mine)]]"),
    (CRITICS, ".time.clamp(max=horizon - 1)", ".time * 0"),
    (CRITICS, "torch.where(share > 0, means, (means @ share).unsqueeze(1))", "means"),
    (CRITICS, "known = restricted_log_probs(log_probs, visits > 0)", "known = log_probs"),
    (REGRESSION, "expected[over] = 0.0", ""),
    (REGRESSION, "squares <= limits * steps", "squares < torch.inf"),
    (REGRESSION, "penalty[:, -1] = 0.0", ""),
    (REGRESSION, "rewards.min().clamp(max=0)", "rewards.min()"),
    (FEATURES, "torch.where(self.seen, of_all, mean)", "of_all"),
    (FEATURES, "flat(one_hot(actions.long(), known))", "flat(actions)"),
    (FEATURES, ".clamp(-_FARTHEST, _FARTHEST)", ""),
    (DRAWING, "when.double() @ turns[:2] + turns[2]", "when.double() @ turns[:2] * 0"),
    (DRAWING, "torch.random.fork_rng(devices=[])", "torch.no_grad()"),
    (
        LOGGED,
        "self.batch.terminated | (self.segments.lengths < self.segments.most_steps)",
        "self.batch.terminated",
    ),
    (LOGGED, "(self.batch.episode.double() * _GOLDEN_RATIO).frac()", "self.batch.episode.double()"),
    (ROBUST, "sample.segments.next(values, values", "sample.segments.next(0 * values, values"),
    (ROBUST, "sample.discount_from_start * left", "left"),
    (ROBUST, "torch.where(sample.segments.is_first, x, 0.0)", "x"),
    (METHODS, "        _ = log.sample.log_ratios", "        _ = log"),
    (RESAMPLING, "(share - 1) * left_out", "share * left_out"),
    (RESAMPLING, "Terms(value + scaled - scaled.mean()", "Terms(pseudo"),
    (MARGINAL, "relative_weights(log_m + sample.log_ratios", "relative_weights(sample.log_ratios"),
    (MARGINAL, "at_each_time(alive) / torch", "1 / torch"),
    (MARGINAL, "part.ended, count)", "part.batch.terminated, count)"),
    (MARGINAL, "discount=1.0,", "discount=0.99,"),
    (MARGINAL, " - segments.mean(log_m.exp()).log()", ""),
    (MARGINAL, "_MOST_GAPS * most_steps", "len(log) * log.segments.size"),
    (METHODS, "is_source.double().mean(1)", "torch.full((len(policies),), 1 / len(policies))"),
    (METHODS, "_require_recorded(log_probs, is_source, list(policies), log.batch)\n", "pass\n"),
    (METHODS, "if bool(changed.any()):", "if False:"),
    ("core/marginal/kernel.py", "points = landmarks.to(points)", "pass"),
]
