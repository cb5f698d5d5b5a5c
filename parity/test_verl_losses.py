"""verl's losses, aggregations, advantages and penalties: padded `[B, T]` with holes."""

import math

import numpy as np
import pytest
import torch
from padded_verl import AGGREGATIONS, aggregated, check, config, mismatch
from rollouts import gradient, rollouts
from verl.trainer.ppo import core_algos, rollout_corr_helper

import reweigh as rw
from reweigh import advantages, reduce, surrogates, weights


def test_dppo(agree):
    """Steps whose probability has moved too far, as the advantage asks, are rejected."""
    batch = rollouts(46, spread=0.6)
    segments = batch.segments
    theirs, _ = core_algos.compute_policy_loss_dppo_tv(
        batch.old,
        batch.target,
        batch.advantages,
        batch.mask.float(),
        "token-mean",
        config(clip_ratio_low=0.05, clip_ratio_high=0.08),
    )
    moved = segments.as_float64("target", batch.flat(batch.target).exp())
    moved = (moved - segments.as_float64("old", batch.flat(batch.old).exp())).detach()
    gain = segments.as_float64("advantages", batch.flat(batch.advantages))
    kept = torch.where(gain > 0, moved <= 0.08, moved >= -0.05)
    near = weights.truncate(batch.ratios(), segments, maximum=3.0).log_weights
    weight = weights.reject(near, kept, segments).log_weights.exp()
    objective = surrogates.weighted_log_prob(batch.flat(batch.target), weight, gain, segments)
    ours = aggregated(objective, segments, "token-mean", horizon=0)
    inner = "weighted_log_prob(log_prob, reject(truncate(ratios), kept).exp())"
    name = "`compute_policy_loss_dppo_tv`"
    check(agree, name, AGGREGATIONS["token-mean"].format(inner), batch, ours, theirs)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_aggregation(agree, mode):
    batch = rollouts(45)
    theirs = core_algos.agg_loss(-batch.target, batch.mask.float(), mode)
    ours = aggregated(batch.flat(batch.target), batch.segments, mode, horizon=batch.mask.shape[1])
    name = f"`agg_loss`, {mode}"
    check(agree, name, AGGREGATIONS[mode].format("objective"), batch, ours, theirs)


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("corrected", [False, True])
def test_ppo(agree, mode, corrected):
    batch = rollouts(33, spread=0.8)
    segments, horizon = batch.segments, batch.mask.shape[1]
    gain = segments.as_float64("advantages", batch.flat(batch.advantages))
    inner, name, given = "clipped_ratio(ratios, dual_clip=3)", "`compute_policy_loss_vanilla`", None
    if corrected:
        log_ratio, ratios = mismatch(batch)
        given, _ = rollout_corr_helper.compute_rollout_correction_weights(
            log_ratio, batch.mask.float(), "token", 2.0
        )
        gain = gain * weights.truncate(ratios, segments, maximum=2.0).log_weights.exp()
        inner = "clipped_ratio(ratios, truncate(mismatch).exp() * advantages, dual_clip=3)"
        name += ", TIS"
    theirs, _ = core_algos.compute_policy_loss_vanilla(
        batch.old,
        batch.target,
        batch.advantages,
        batch.mask.float(),
        mode,
        config(),
        rollout_is_weights=given,
    )
    objective = surrogates.clipped_ratio(
        batch.ratios(), gain, segments, clip=0.2, clip_high=0.28, dual_clip=3.0
    )
    ours = aggregated(objective, segments, mode, horizon=horizon)
    check(agree, name, inner, batch, ours, theirs)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_gspo(agree, mode):
    batch = rollouts(34)
    segments, horizon = batch.segments, batch.mask.shape[1]
    per_token = batch.scores.unsqueeze(1).expand(batch.mask.shape)
    theirs, _ = core_algos.compute_policy_loss_gspo(
        batch.old, batch.target, per_token, batch.mask.float(), mode, config()
    )
    objective = surrogates.clipped_ratio(
        weights.geometric_mean(batch.ratios(), segments),
        batch.flat(batch.scores),
        segments,
        clip=0.2,
        clip_high=0.28,
    )
    ours = aggregated(objective, segments, mode, horizon=horizon)
    inner = "clipped_ratio(geometric_mean(ratios))"
    check(agree, "`compute_policy_loss_gspo`", inner, batch, ours, theirs)


def test_gspo_with_an_advantage_for_each_token(agree):
    """Its gradient is then that of GSPO-token: the mean's ratio weighs each step's own score."""
    batch = rollouts(47)
    segments = batch.segments
    theirs, _ = core_algos.compute_policy_loss_gspo(
        batch.old,
        batch.target,
        batch.advantages,
        batch.mask.float(),
        "seq-mean-token-mean",
        config(),
    )
    ratios = batch.ratios()
    mean = weights.geometric_mean(ratios, segments).detach() + ratios - ratios.detach()
    objective = surrogates.clipped_ratio(
        mean, batch.flat(batch.advantages), segments, clip=0.2, clip_high=0.28
    )
    ours = reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    inner = "clipped_ratio(sg(geometric_mean(ratios)) + ratios - sg(ratios))"
    name = "`compute_policy_loss_gspo`, advantages of tokens"
    check(agree, name, AGGREGATIONS["seq-mean-token-mean"].format(inner), batch, ours, theirs)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_cispo(agree, mode):
    batch = rollouts(36)
    segments, horizon = batch.segments, batch.mask.shape[1]
    theirs, _ = core_algos.compute_policy_loss_cispo(
        batch.old, batch.target, batch.advantages, batch.mask.float(), mode, config()
    )
    weight = weights.clip(batch.ratios(), segments, minimum=0.8, maximum=1.28).log_weights.exp()
    objective = surrogates.weighted_log_prob(
        batch.flat(batch.target), weight, batch.flat(batch.advantages), segments
    )
    ours = aggregated(objective, segments, mode, horizon=horizon)
    inner = "weighted_log_prob(log_prob, clip(ratios).exp())"
    check(agree, "`compute_policy_loss_cispo`", inner, batch, ours, theirs)


def test_reinforce(agree):
    batch = rollouts(37)
    segments = batch.segments
    log_ratio = (batch.target - batch.sampler).detach()
    given, _ = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, batch.mask.float(), "sequence", 2.0
    )
    theirs, _ = core_algos.compute_policy_loss_reinforce(
        batch.sampler,
        batch.target,
        batch.advantages,
        batch.mask.float(),
        "seq-mean-token-sum",
        config(),
        given,
    )
    whole = weights.trajectory(batch.ratios(batch.sampler), segments)
    weight = weights.truncate(whole, segments, maximum=2.0).log_weights.exp()
    objective = surrogates.weighted_log_prob(
        batch.flat(batch.target), weight, batch.flat(batch.advantages), segments
    )
    call = "loss(weighted_log_prob(log_prob, truncate(trajectory(ratios)).exp()))"
    name = "`compute_policy_loss_reinforce`, sequence TIS"
    check(agree, name, call, batch, reduce.loss(objective, segments), theirs)


DIVISORS = {
    "token-mean, all counted": (None, "count_steps"),
    "token-mean, survivors counted": (reduce.count_steps, "count_steps(kept)"),
    "seq-mean-token-sum": (reduce.count_episodes, "count_episodes(kept)"),
}


@pytest.mark.parametrize("name", DIVISORS)
def test_the_divisor_after_a_rejection(agree, name):
    """What verl counts depends on the mode and on when it was told; here it is one argument."""
    batch = rollouts(38)
    segments = batch.segments
    log_ratio, ratios = mismatch(batch)
    surviving, _ = rollout_corr_helper.compute_rollout_rejection_mask(
        log_ratio, batch.mask.float(), "seq_mean_k2", "0.06"
    )
    count, call = DIVISORS[name]
    settings = config()
    if count is None:
        settings.global_batch_info["batch_num_tokens"] = batch.mask.sum()
    theirs, _ = core_algos.compute_policy_loss_vanilla(
        batch.old, batch.target, batch.advantages, surviving, name.partition(",")[0], settings
    )
    mean = segments.total(ratios.square() / 2) / segments.lengths
    kept = (mean <= 0.06)[segments.episode]
    assert 0 < surviving.sum() < batch.mask.sum()
    weight = weights.reject(torch.zeros(segments.size), kept, segments).log_weights.exp()
    gain = weight * segments.as_float64("advantages", batch.flat(batch.advantages))
    objective = surrogates.clipped_ratio(
        batch.ratios(), gain, segments, clip=0.2, clip_high=0.28, dual_clip=3.0
    )
    divisor = reduce.count_steps(segments) if count is None else count(segments, kept)
    ours = reduce.loss(objective, segments, divisor=divisor)
    call = f"loss(clipped_ratio(ratios, reject(...).exp() * advantages), divisor={call})"
    name = f"`compute_policy_loss_vanilla` after rejection, {name}"
    check(agree, name, call, batch, ours, theirs)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_advantages_of_groups(agree, name):
    batch = rollouts(39, rows=12)
    segments = batch.segments
    group = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 3])  # the last is alone
    # One score for each row, at its last token.
    outcome = torch.zeros_like(batch.rewards)
    last = batch.mask.float().cumsum(1).argmax(1)
    outcome[torch.arange(12), last] = batch.scores
    scores = segments.total(batch.flat(outcome))
    given = (outcome, batch.mask.float(), group.numpy())
    if name == "rloo":
        function, call = "compute_rloo_outcome_advantage", "advantages.leave_one_out(...)"
        theirs, _ = core_algos.compute_rloo_outcome_advantage(*given)
        ours = advantages.leave_one_out(scores, group, groups=4)
    else:
        function = "compute_grpo_outcome_advantage"
        theirs, _ = core_algos.compute_grpo_outcome_advantage(
            *given, norm_adv_by_std_in_grpo=name == "grpo"
        )
        plain = advantages.group_centred(scores, group, groups=4)
        ours = advantages.group_relative(scores, group, groups=4) if name == "grpo" else plain
        call = f"advantages.{'group_relative' if name == 'grpo' else 'group_centred'}(...)"
    # An answer that is alone has no baseline: see the test below.
    alone = segments.spread((group == 3).double()) > 0
    everywhere = segments.spread(ours).masked_fill(alone, 0.0).reshape(batch.mask.shape)
    theirs = theirs.masked_fill(alone.reshape(batch.mask.shape), 0.0)
    row = f"`{function}`" + (", without std" if name == "dr_grpo" else "")
    agree("verl", row, call, everywhere, theirs)


def test_an_answer_without_others_keeps_its_raw_score(differ):
    given = (torch.tensor([[5.0]]), torch.ones(1, 1), np.array([0]))
    group = torch.zeros(1, dtype=torch.long)
    assert float(core_algos.compute_rloo_outcome_advantage(*given)[0]) == 5.0
    given = (torch.tensor([[5.0]]), torch.ones(1, 1), np.array([0]))
    assert abs(float(core_algos.compute_grpo_outcome_advantage(*given)[0]) - 5.0) < 1e-4
    assert advantages.leave_one_out(torch.tensor([5.0]), group, groups=1) == 0.0
    assert advantages.group_relative(torch.tensor([5.0]), group, groups=1) == 0.0
    differ(
        "verl",
        "GRPO and RLOO advantage of a lone answer of score 5",
        "5 (no baseline)",
        "0",
        "reweigh: a raw score is not centred",
    )


def test_gae_over_holes(agree):
    batch = rollouts(40)
    segments = batch.segments
    theirs = core_algos.compute_gae_advantage_return(
        batch.rewards, batch.values, batch.mask.float(), torch.tensor(0.97), torch.tensor(0.9)
    )[1]
    ours = batch.flat(batch.values) + advantages.gae(
        batch.flat(batch.rewards),
        batch.flat(batch.values),
        torch.zeros(len(batch.mask)),
        segments,
        discount=0.97,
        trace_lambda=0.9,
    )
    agree(
        "verl",
        "`compute_gae_advantage_return`: returns",
        "values + advantages.gae(...)",
        batch.steps(ours),
        batch.steps(theirs),
    )


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_penalties(agree, kind):
    batch = rollouts(41)
    segments = batch.segments
    theirs = core_algos.kl_penalty(batch.target, batch.reference, kind)
    one = torch.ones(segments.size)
    penalty = {"k1": surrogates.kl_k1, "k2": surrogates.kl_k2, "k3": surrogates.kl_k3}[kind]
    ours = penalty(batch.ratios(batch.reference), one, segments)
    through = "k2" if kind == "k2" else f"{kind}+"
    straight = core_algos.kl_penalty(batch.target, batch.reference, through)
    row = ("verl", f"`kl_penalty`: {kind}, and the gradient of {through}", f"kl_{kind}(w=1)")
    agree(*row, batch.steps(ours), batch.steps(theirs))
    agree(
        *row,
        gradient(ours.sum(), batch.target),
        gradient(batch.steps(straight).sum(), batch.target),
    )


def test_plain_k1_has_the_gradient_of_nothing(differ):
    batch = rollouts(42)
    theirs = core_algos.kl_penalty(batch.target, batch.reference, "k1")
    assert torch.equal(gradient(theirs.sum(), batch.target), torch.ones_like(batch.old))
    differ(
        "verl",
        "k1 penalty's gradient at a token of log-ratio ℓ",
        "∇log π, of mean 0",
        "ℓ ∇log π",
        "reweigh: `E[∇log π] = 0` teaches nothing; verl's k1+ is equal",
    )


def test_k3_saturates(differ):
    target, reference = torch.tensor([-30.0]), torch.tensor([-1.0])
    theirs = float(core_algos.kl_penalty(target, reference, "k3"))
    segments = rw.Segments.packed([1])
    ratios = rw.log_ratios(target, reference, segments)
    ours = float(surrogates.kl_k3(ratios, torch.ones(1), segments))
    assert theirs == 10.0
    assert abs(ours / (math.expm1(29) - 29) - 1) < 1e-9
    differ(
        "verl",
        "k3 at a log-ratio of -29",
        "10",
        f"{ours:.3g} = e^29 - 30",
        "reweigh; verl bounds it",
    )


def test_the_deprecated_loss_is_the_same(agree):
    batch = rollouts(44)
    segments = batch.segments
    theirs = core_algos.compute_policy_loss(
        batch.old, batch.target, batch.advantages, batch.mask.float(), 0.2
    )[0]
    objective = surrogates.clipped_ratio(
        batch.ratios(), batch.flat(batch.advantages), segments, clip=0.2, dual_clip=3.0
    )
    ours = reduce.loss(objective, segments, divisor=reduce.count_steps(segments))
    call = AGGREGATIONS["token-mean"].format("clipped_ratio(ratios, dual_clip=3)")
    check(agree, "`compute_policy_loss` (deprecated)", call, batch, ours, theirs)


def test_what_is_not_a_number_at_a_padded_slot_stays(differ):
    log_ratio = torch.tensor([[0.1, torch.nan]])
    mask = torch.tensor([[1.0, 0.0]])
    theirs, _ = rollout_corr_helper.compute_rollout_correction_weights(
        log_ratio, mask, "token", 2.0
    )
    assert theirs.isnan().tolist() == [[False, True]]
    segments = rw.Segments.padded([1], 2)
    ours = weights.truncate(log_ratio.flatten(), segments, maximum=2.0).log_weights
    assert ours[1] == 0.0
    differ(
        "verl",
        "weight at a padded slot whose log-ratio is NaN",
        "NaN",
        "no weight (log 0.0)",
        "reweigh",
    )

    target = torch.tensor([[-1.0, torch.nan]], requires_grad=True)
    old, gain = torch.full((1, 2), -1.1), torch.ones(1, 2)
    theirs, _ = core_algos.compute_policy_loss_vanilla(
        old, target, gain, mask, "seq-mean-token-sum", config()
    )
    assert theirs.isnan()
    theirs, _ = core_algos.compute_policy_loss_vanilla(
        old, target, gain, mask, "token-mean", config()
    )
    assert theirs.isfinite()
    objective = surrogates.clipped_ratio(
        rw.log_ratios(target.flatten(), old.flatten(), segments), gain.flatten(), segments, clip=0.2
    )
    ours = reduce.loss(objective, segments)
    assert ours.isfinite() and gradient(ours, target)[0, 1] == 0.0
    differ(
        "verl",
        "loss with a NaN log-probability at a padded slot, seq-mean-token-sum",
        "NaN (finite for token-mean)",
        f"{ours:.3f}",
        "reweigh",
    )


def test_a_row_without_steps_is_not_counted(differ):
    """Its mean is over rows that have tokens; reweigh counts episodes, and an empty one is one."""
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    theirs = core_algos.agg_loss(torch.ones(2, 2), mask, "seq-mean-token-sum")
    segments = rw.Segments.padded([2, 0], 2)
    ours = reduce.loss(-torch.ones(4), segments)
    assert float(theirs) == 2.0
    assert float(ours) == 1.0
    either = reduce.loss(-torch.ones(4), segments, divisor=(segments.lengths > 0).sum())
    assert float(either) == 2.0
    differ(
        "verl",
        "seq-mean of two rows, one of two tokens of loss 1 and one empty",
        "2",
        "1",
        "either, by the divisor: `(lengths > 0).sum()` gives verl's",
    )
