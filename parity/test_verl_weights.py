"""verl's correction of the sampler, its rejections and its metrics: padded `[B, T]` with holes."""

import math

import pytest
import torch
from padded_verl import mismatch
from rollouts import rollouts
from verl.trainer.ppo import rollout_corr_helper

import reweigh as rw
from reweigh import diagnostics, weights


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("threshold", [1.5, "0.7_1.6"])
@pytest.mark.parametrize("normalise", [False, True])
def test_rollout_correction(agree, level, threshold, normalise):
    batch = rollouts(31)
    segments = batch.segments
    log_ratio, ratios = mismatch(batch)
    theirs, _ = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, batch.mask.float(), level, threshold, normalise
    )
    scope = weights.step if level == "token" else weights.trajectory
    log_weights = scope(ratios, segments)
    if isinstance(threshold, float):
        bounded, bound = weights.truncate(log_weights, segments, maximum=threshold), "truncate"
    else:
        bounded = weights.mask_outside(log_weights, segments, minimum=0.7, maximum=1.6)
        bound = "mask_outside"
    assert bounded.touched.any()
    call = f"{bound}({'ratios' if level == 'token' else 'trajectory(ratios)'})"
    ours, name = (
        segments.fill(bounded.log_weights.exp()),
        "TIS" if bound == "truncate" else "IcePop",
    )
    if normalise and level == "token":
        ours, call = ours / segments.mean(ours), "w / segments.mean(w), w = bounded.exp()"
    elif normalise:
        ours = segments.fill(weights.self_normalise(bounded.log_weights, segments).exp())
        call = "self_normalise(bounded)"
    name = "normalised" if normalise else name
    row = f"`compute_rollout_correction_weights`: {level}, {name}"
    agree("verl", row, call, ours.reshape(batch.mask.shape), theirs, each=True)


def rejected_by(rule, ratios, segments, low, high):
    """Steps kept under one of verl's rules, `[S]` bool, and the call that says so."""
    k2, k3 = ratios.square() / 2, ratios.expm1() - ratios
    level, _, kind = rule.rpartition("_")
    if kind == "k1":
        scope = {
            "token": weights.step,
            "seq_sum": weights.trajectory,
            "seq_mean": weights.geometric_mean,
        }[level]
        # verl's k1 is minus the log-ratio, so its bounds are those of 1/ρ.
        inside = weights.mask_outside(
            scope(ratios, segments), segments, minimum=1 / high, maximum=1 / low
        )
        return ~inside.touched, f"mask_outside({scope.__name__}(ratios), 1/upper, 1/lower)"
    if rule == "seq_max_k2":
        limit = math.sqrt(2 * high)
        kept = weights.veto(
            ratios, ratios, segments, minimum=math.exp(-limit), maximum=math.exp(limit)
        )
        return ~kept.touched, "veto(e^-√(2 upper), e^√(2 upper))"
    statistic = k2 if kind == "k2" else k3
    if level == "seq_sum":
        statistic = segments.spread(segments.total(statistic))
    elif level == "seq_mean":
        statistic = segments.spread(segments.total(statistic) / segments.lengths.clamp(min=1))
    elif level == "seq_max":
        above = segments.total((statistic > high).double())
        statistic = torch.where(segments.spread(above) > 0, torch.inf, 0.0)
    kept = weights.reject(ratios, statistic <= high, segments)
    return ~kept.touched, "reject(statistic <= upper)"


OTHERS = "`compute_rollout_rejection_mask`: k2 and k3 of tokens, their sum, mean and maximum"
RULES = {
    "token_k1": "0.7_1.5",
    "seq_sum_k1": "0.4_3.0",
    "seq_mean_k1": "0.9_1.2",
    "token_k2": "0.1",
    "token_k3": "0.1",
    "seq_sum_k2": "1.0",
    "seq_sum_k3": "1.0",
    "seq_mean_k2": "0.1",
    "seq_mean_k3": "0.1",
    "seq_max_k2": "0.3",
    "seq_max_k3": "0.3",
}


@pytest.mark.parametrize("rule", RULES)
def test_rejection(agree, rule):
    batch = rollouts(32, rows=12)
    segments = batch.segments
    log_ratio, ratios = mismatch(batch)
    theirs, _ = rollout_corr_helper.compute_rollout_rejection_mask(
        log_ratio, batch.mask.float(), rule, RULES[rule]
    )
    *low, high = map(float, RULES[rule].split("_"))
    kept, call = rejected_by(rule, ratios, segments, *(low or [None]), high)
    ours = (kept & segments.inside).double().reshape(batch.mask.shape)
    assert 0 < theirs.sum() < batch.mask.sum()
    row = f"`compute_rollout_rejection_mask`: {rule}" if "k1" in rule or "veto" in call else OTHERS
    agree("verl", row, call, ours, theirs, each=True)


def test_mismatch_metrics(agree):
    batch = rollouts(43)
    segments = batch.segments
    _, ratios = mismatch(batch)
    theirs = rollout_corr_helper.compute_offpolicy_metrics(
        batch.old, batch.sampler, batch.mask.float()
    )
    agree(
        "verl",
        "`compute_offpolicy_metrics`: k3_kl",
        "diagnostics.approximate_kl(...)",
        diagnostics.approximate_kl(ratios, segments),
        theirs["k3_kl"],
    )
    agree(
        "verl",
        "`compute_offpolicy_metrics`: kl",
        "-segments.mean(ratios)",
        -segments.mean(ratios),
        theirs["kl"],
    )
    size = diagnostics.effective_sample_size(batch.steps(weights.step(ratios, segments)))
    _, metrics = rollout_corr_helper.compute_rollout_correction_weights(
        batch.old - batch.sampler, batch.mask.float(), "token", 1e6
    )
    agree(
        "verl",
        "`rollout_is_eff_sample_size`, no truncation",
        "diagnostics.effective_sample_size(...) / steps",
        size / batch.mask.sum(),
        metrics["rollout_is_eff_sample_size"],
    )


def test_its_sample_size_is_that_after_truncation(differ):
    g = torch.Generator().manual_seed(0)
    log_ratio = 0.3 * torch.randn(256, 200, generator=g)
    _, metrics = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, torch.ones(256, 200), "sequence", 2.0
    )
    theirs = metrics["rollout_is_eff_sample_size"]
    segments = rw.Segments.padded([200] * 256, 200)
    whole = segments.last(weights.trajectory(log_ratio.flatten(), segments))
    raw = float(diagnostics.effective_sample_size(whole)) / 256
    bounded = whole.clamp(max=math.log(2.0))  # one weight for each sequence
    assert abs(float(diagnostics.effective_sample_size(bounded)) / 256 - theirs) < 1e-5
    assert theirs > 0.5
    assert raw < 0.05
    differ(
        "verl",
        "effective share of 256 sequences of 200 tokens, log-ratios N(0, 0.3)",
        f"{theirs:.3f}, after truncation at 2",
        f"{raw:.3f} before, {theirs:.3f} after",
        "reweigh: the bound hides what it bounded",
    )


def test_its_sample_size_counts_tokens(differ):
    """A sequence of 1000 tokens with weight 1 and one of a single token with weight 2."""
    mask = torch.zeros(2, 1000)
    mask[0], mask[1, 0] = 1.0, 1.0
    log_ratio = torch.zeros(2, 1000)
    log_ratio[1, 0] = math.log(2.0)
    _, metrics = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, mask, "sequence", 2.0
    )
    theirs = metrics["rollout_is_eff_sample_size"]
    segments = rw.Segments.padded([1000, 1], 1000)
    whole = segments.last(weights.trajectory(log_ratio.flatten(), segments))
    ours = float(diagnostics.effective_sample_size(whole)) / 2
    assert theirs > 0.998
    assert abs(ours - 0.9) < 1e-6
    differ(
        "verl",
        "effective share of two sequences, 1000 tokens of weight 1 and 1 token of weight 2",
        f"{theirs:.3f}",
        f"{ours:.3f}",
        "reweigh: sequences were sampled, not tokens",
    )


def test_weights_and_divergences_saturate(differ):
    log_ratio, mask = torch.full((1, 3), 15.0), torch.ones(1, 3)
    theirs, _ = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, mask, "sequence", 1e30
    )
    segments = rw.Segments.packed([3])
    ours = weights.trajectory(log_ratio.flatten(), segments).exp()[0]
    assert abs(float(theirs[0, 0]) / math.exp(20) - 1) < 1e-5
    assert abs(float(ours) / math.exp(45) - 1) < 1e-9
    differ(
        "verl",
        "sequence weight at a log-ratio of 45",
        f"{float(theirs[0, 0]):.3g} = e^20",
        f"{ours:.3g} = e^45",
        "reweigh; a bound is `truncate`'s to set",
    )
    chi = rollout_corr_helper.compute_offpolicy_metrics(log_ratio, torch.zeros(1, 3), mask)
    assert abs(chi["chi2_seq"] / math.exp(40) - 1) < 1e-4
    square = float((2 * segments.last(weights.trajectory(log_ratio.flatten(), segments))).exp())
    assert abs(square / math.exp(90) - 1) < 1e-9
    differ(
        "verl",
        "chi-square over sequences, one of log-ratio 45",
        f"{chi['chi2_seq']:.3g} = e^40",
        f"{square:.3g} = e^90",
        "reweigh",
    )


def test_its_k1_bounds_are_those_of_the_inverse_ratio(differ):
    log_ratio = torch.tensor([[math.log(4.0)], [math.log(0.25)]])
    kept, _ = rollout_corr_helper.compute_rollout_rejection_mask(
        log_ratio, torch.ones(2, 1), "token_k1", "0.1_2.0"
    )
    assert kept.flatten().tolist() == [1.0, 0.0]
    segments = rw.Segments.packed([1, 1])
    ours = weights.mask_outside(log_ratio.flatten(), segments, minimum=0.1, maximum=2.0)
    assert ours.touched.tolist() == [True, False]
    differ(
        "verl",
        "ratios 4 and 1/4 under the band 0.1 to 2 (token_k1 bounds 1/ρ)",
        "keeps 4, rejects 1/4",
        "rejects 4, keeps 1/4",
        "a matter of sign: documented as `-log r` with ratio bounds",
    )
