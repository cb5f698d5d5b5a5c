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
STATES = "evaluation/states.py"
ROBUST = "evaluation/doubly_robust.py"
MARGINAL = "evaluation/state_marginal.py"
RESAMPLING = "evaluation/resampling.py"
MIXTURES = "evaluation/mixtures.py"

MUTATIONS = [
    (CRITICS, "sample.select(x.nonzero().squeeze(1)) for x in (fold != k", "sample for x in (fold"),
    (CRITICS, "here = here[owner[here].argsort(stable=True)]", ""),
    (CRITICS, ".time.clamp(max=horizon - 1)", ".time * 0"),
    (CRITICS, "torch.where(share > 0, means, (means @ share).unsqueeze(1))", "means"),
    (CRITICS, "known = among(log_probs, visits > 0)", "known = log_probs"),
    (REGRESSION, "expected[over] = 0.0", ""),
    (REGRESSION, "squares <= limits * steps", "squares < torch.inf"),
    (REGRESSION, "penalty[:, -1] = 0.0", ""),
    (REGRESSION, "rewards.min().clamp(max=0)", "rewards.min()"),
    (FEATURES, "torch.where(self.seen, of_all, mean)", "of_all"),
    (FEATURES, "flat(one_hot(actions.long(), known))", "flat(actions)"),
    (FEATURES, ".clamp(-_FARTHEST, _FARTHEST)", ""),
    (DRAWING, "when.double() @ turns[:2] + turns[2]", "when.double() @ turns[:2] * 0"),
    (DRAWING, "torch.random.fork_rng(devices=[])", "torch.no_grad()"),
    (STATES, "batch.terminated | (segments.lengths < segments.most_steps)", "batch.terminated"),
    (STATES, "(batch.episode.double() * _GOLDEN_RATIO).frac()", "batch.episode.double()"),
    (ROBUST, "segments.next(predicted.values, nothing)", "segments.next(0 * left, nothing)"),
    (ROBUST, "left * discount_from_start(segments, discount=sample.discount)", "left"),
    (ROBUST, "masked_fill(~segments.is_first, 0.0)", "clone()"),
    (RESAMPLING, "(share - 1) * left_out", "share * left_out"),
    (RESAMPLING, "Terms(value + scaled - scaled.mean()", "Terms(pseudo"),
    (MARGINAL, "relative_weights(log_m + sample.log_ratios", "relative_weights(sample.log_ratios"),
    (MARGINAL, "at_each_time(alive) / torch", "1 / torch"),
    (MARGINAL, "ended(some), count)", "some.batch.terminated, count)"),
    (MARGINAL, "discount=1.0,", "discount=0.99,"),
    (MARGINAL, " - segments.mean(log_m.exp()).log()", ""),
    (MARGINAL, "_MOST_GAPS * most_steps", "len(sample) * sample.segments.size"),
    (MIXTURES, "source.double().mean(1)", "torch.full((len(policies),), 1 / len(policies))"),
    (MIXTURES, "    _require_same(log_probs, source, list(policies), batch)\n", ""),
    (MIXTURES, "if bool(changed.any()):", "if False:"),
    ("core/marginal/kernel.py", "points = landmarks.to(points)", "pass"),
]
