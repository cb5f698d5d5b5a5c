"""TRL: the loss is a method of the trainer, called on a trainer that holds only what it reads."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from rollouts import Rollouts, gradient, rollouts
from trl import GRPOTrainer
from trl.trainer.utils import selective_log_softmax

import reweigh as rw
from reweigh import reduce, surrogates, weights

LIMIT = 20  # `max_completion_length`


def its_loss(batch: Rollouts, advantages, *, mask=None, **settings):
    """`GRPOTrainer._compute_loss`, with the log-probabilities of the batch for those of a model."""
    old, reference = batch.old, batch.reference
    trainer = object.__new__(GRPOTrainer)
    trainer.model = SimpleNamespace(training=True)
    trainer.accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer._metrics = {"train": defaultdict(list)}
    trainer.current_gradient_accumulation_steps = 1
    trainer.max_completion_length = LIMIT
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer.top_entropy_quantile = 1.0
    trainer.loss_type = settings.pop("loss_type")
    trainer.importance_sampling_level = settings.pop("level", "token")
    trainer.epsilon_low = settings.pop("low", 0.2)
    trainer.epsilon_high = settings.pop("high", 0.28)
    trainer.beta = settings.pop("beta", 0.0)
    trainer.off_policy_mask_threshold = settings.pop("threshold", None)
    ratio = settings.pop("ratio", None)
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = ratio is not None
    trainer.args = SimpleNamespace(
        delta=settings.pop("delta", None),
        use_bias_correction_kl=settings.pop("correct_kl", False),
        steps_per_generation=1,
    )
    assert not settings
    entropy = torch.zeros_like(old)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (batch.target, entropy, None)
    mask = (batch.mask if mask is None else mask).float()
    # The completions have no holes; `tool_mask` makes them.
    until = mask.flip(1).cummax(1).values.flip(1)
    ids = torch.zeros(until.shape, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": until,
        "tool_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "sampling_per_token_logps": batch.sampler,
        "importance_sampling_ratio": ratio,
        "num_items_in_batch": mask.sum(),
    }
    return trainer._compute_loss(trainer.model, inputs)


def check(agree, name, call, batch, ours, theirs):
    """Value and gradient."""
    row = ("trl", f"`_compute_loss`, {name}", call)
    agree(*row, ours, theirs)
    agree(*row, gradient(ours, batch.target), gradient(theirs, batch.target))


def divided(objective, segments, loss_type):
    """The loss under TRL's divisor for a type, and the call that it is."""
    if loss_type == "grpo":
        return reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    divisor = {
        "bnpo": reduce.count_steps(segments),
        "dapo": reduce.count_steps(segments),
        "dr_grpo": reduce.count_episodes(segments) * LIMIT,
        "luspo": reduce.count_episodes(segments),
    }[loss_type]
    return reduce.loss(objective, segments, divisor=divisor)


CALLS = {
    "grpo": "loss(per_episode_mean({}))",
    "bnpo": "loss({}, divisor=count_steps)",
    "dapo": "loss({}, divisor=count_steps)",
    "dr_grpo": "loss({}, divisor=count_episodes * longest)",
    "luspo": "loss({}, divisor=count_episodes)",
}


@pytest.mark.parametrize("loss_type", CALLS)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("delta", [None, 1.4])
def test_clipped_losses(agree, loss_type, level, delta):
    batch = rollouts(21)
    segments = batch.segments
    scope = weights.step if level == "token" else weights.geometric_mean
    objective = surrogates.clipped_ratio(
        scope(batch.ratios(), segments),
        batch.flat(batch.scores),
        segments,
        clip=0.2,
        clip_high=0.28,
        dual_clip=delta or torch.inf,
    )
    inner = "clipped_ratio(scope(ratios), dual_clip=delta)"
    name = f"{loss_type}: token, sequence, with `delta`"
    theirs = its_loss(batch, batch.scores, loss_type=loss_type, level=level, delta=delta)
    ours = divided(objective, segments, loss_type)
    check(agree, name, CALLS[loss_type].format(inner), batch, ours, theirs)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_cispo(agree, level):
    batch = rollouts(22)
    segments = batch.segments
    scope = weights.step if level == "token" else weights.geometric_mean
    weight = weights.truncate(scope(batch.ratios(), segments), segments, maximum=1.3)
    objective = surrogates.weighted_log_prob(
        batch.flat(batch.target), weight.log_weights.exp(), batch.flat(batch.scores), segments
    )
    ours = reduce.loss(objective, segments, divisor=reduce.count_steps(segments))
    theirs = its_loss(batch, batch.scores, loss_type="cispo", level=level, high=1.3)
    inner = "weighted_log_prob(log_prob, truncate(scope(ratios)).exp())"
    call = CALLS["dapo"].format(inner)
    check(agree, "cispo: token, sequence", call, batch, ours, theirs)


def test_advantages_of_each_token(agree):
    batch = rollouts(23)
    segments = batch.segments
    objective = surrogates.clipped_ratio(
        batch.ratios(), batch.flat(batch.advantages), segments, clip=0.2, clip_high=0.28
    )
    ours = divided(objective, segments, "dapo")
    theirs = its_loss(batch, batch.advantages, loss_type="dapo")
    call = CALLS["dapo"].format("clipped_ratio(ratios)")
    check(agree, "dapo: an advantage for each token", call, batch, ours, theirs)


@pytest.mark.parametrize("sequence", [False, True])
def test_correction_of_the_sampler(agree, sequence):
    """TRL takes the ratio ready made; what makes it is part of generation, out of reach here."""
    batch = rollouts(24)
    segments = batch.segments
    mismatch = rw.log_ratios(batch.flat(batch.old), batch.flat(batch.sampler), segments)
    scope = weights.trajectory if sequence else weights.step
    bound = weights.truncate(scope(mismatch, segments), segments, maximum=1.5)
    weight = segments.fill(bound.log_weights.exp())
    objective = surrogates.clipped_ratio(
        batch.ratios(),
        weight * segments.as_float64("scores", batch.flat(batch.scores)),
        segments,
        clip=0.2,
        clip_high=0.28,
    )
    ratio = weight.reshape(batch.mask.shape).float()
    if sequence:
        ratio = ratio.max(dim=1, keepdim=True).values
    theirs = its_loss(batch, batch.scores, loss_type="dapo", ratio=ratio)
    ours = divided(objective, segments, "dapo")
    inner = "clipped_ratio(ratios, w * advantages)"
    name = "dapo: `importance_sampling_ratio`"
    check(agree, name, CALLS["dapo"].format(inner), batch, ours, theirs)


@pytest.mark.parametrize("correct_kl", [False, True])
def test_kl_penalty(agree, correct_kl):
    batch = rollouts(25)
    segments = batch.segments
    objective = surrogates.clipped_ratio(
        batch.ratios(), batch.flat(batch.scores), segments, clip=0.2, clip_high=0.28
    )
    to_reference = batch.ratios(batch.reference)
    # Uncorrected, TRL differentiates k3 as it stands: its gradient is that of the other direction.
    weight = batch.ratios().exp() if correct_kl else torch.ones(segments.size)
    k3 = surrogates.kl_k3(to_reference, weight, segments)
    slope = k3 if correct_kl else surrogates.kl_from_reference(to_reference, weight, segments)
    theirs = its_loss(batch, batch.scores, loss_type="dapo", beta=0.1, correct_kl=correct_kl)
    name = "dapo: `beta`" + (", `use_bias_correction_kl`" if correct_kl else "")
    call = CALLS["dapo"].format("clipped_ratio(ratios) - beta * {}")
    agree(
        "trl",
        f"`_compute_loss`, {name}",
        call.format("kl_k3(w=ρ)" if correct_kl else "kl_k3(w=1)"),
        divided(objective - 0.1 * k3, segments, "dapo"),
        theirs,
    )
    agree(
        "trl",
        f"`_compute_loss`, {name}: gradient",
        call.format("kl_k3(w=ρ)" if correct_kl else "kl_from_reference(w=1)"),
        gradient(divided(objective - 0.1 * slope, segments, "dapo"), batch.target),
        gradient(theirs, batch.target),
    )


def kept_by_kl(batch, threshold):
    """Rows of non-negative advantage, or near the sampler: `[S]`."""
    segments = batch.segments
    mean = weights.geometric_mean(batch.ratios(batch.sampler), segments)
    return (batch.flat(batch.scores) >= 0) | (-mean <= threshold)


def test_off_policy_mask(agree):
    batch = rollouts(26, rows=16)
    segments = batch.segments
    theirs = GRPOTrainer.get_off_policy_mask(
        batch.scores.unsqueeze(1), batch.target, batch.sampler, batch.mask.float(), 0.05
    )
    kept = kept_by_kl(batch, 0.05)
    rejected = weights.reject(torch.zeros(segments.size), kept, segments)
    call = "weights.reject(log_weights, A >= 0 or -geometric_mean(ratios) <= δ)"
    assert 0 < theirs.sum() < len(theirs)
    agree(
        "trl",
        "`get_off_policy_mask`",
        call,
        batch.steps(rejected.log_weights.exp()),
        batch.steps(theirs.expand(batch.mask.shape)),
        each=True,
    )
    objective = surrogates.clipped_ratio(
        batch.ratios(),
        rejected.log_weights.exp() * segments.as_float64("scores", batch.flat(batch.scores)),
        segments,
        clip=0.2,
        clip_high=0.28,
    )
    ours = divided(objective, segments, "dapo")
    theirs = its_loss(batch, batch.scores, loss_type="dapo", threshold=0.05)
    inner = "clipped_ratio(ratios, reject(...).exp() * advantages)"
    check(
        agree, "dapo: `off_policy_mask_threshold`", CALLS["dapo"].format(inner), batch, ours, theirs
    )


@pytest.mark.parametrize("masked", [True, False])
def test_a_log_ratio_of_100_ends_its_gradient(differ, masked):
    batch = rollouts(27, rows=2, horizon=4)
    batch.mask = torch.ones(2, 4, dtype=torch.bool)
    batch.mask[0, 1] = not masked
    batch.old = batch.old.clone()
    batch.old[0, 1] = batch.target.detach()[0, 1] - 100.0
    advantages = torch.ones(2)
    theirs = its_loss(batch, advantages, loss_type="dapo")
    assert theirs.isfinite()
    slope = gradient(theirs, batch.target)
    assert slope.isnan().tolist() == [[False, True, False, False], [False] * 4]

    segments = batch.segments
    ours = divided(
        surrogates.clipped_ratio(
            batch.ratios(), batch.flat(advantages), segments, clip=0.2, clip_high=0.28
        ),
        segments,
        "dapo",
    )
    own = gradient(ours, batch.target)
    assert own[0, 1] == 0.0
    assert torch.allclose(own.nan_to_num(), slope.nan_to_num(), rtol=1e-5)
    where = "masked" if masked else "clipped"
    differ(
        "trl", f"dapo gradient at a {where} token of log-ratio 100, A = 1", "NaN", "0", "reweigh"
    )


def test_a_masked_log_ratio_of_100_with_a_negative_advantage_ends_its_loss(differ):
    batch = rollouts(28, rows=2, horizon=4)
    batch.mask = torch.ones(2, 4, dtype=torch.bool)
    batch.mask[0, 1] = False
    batch.old = batch.old.clone()
    batch.old[0, 1] = batch.target.detach()[0, 1] - 100.0
    advantages = -torch.ones(2)
    theirs = its_loss(batch, advantages, loss_type="dapo")
    assert theirs.isnan()
    segments = batch.segments
    ours = divided(
        surrogates.clipped_ratio(
            batch.ratios(), batch.flat(advantages), segments, clip=0.2, clip_high=0.28
        ),
        segments,
        "dapo",
    )
    assert ours.isfinite() and gradient(ours, batch.target).isfinite().all()
    differ(
        "trl",
        "dapo loss with a masked token of log-ratio 100, A = -1",
        "NaN",
        f"{ours:.3f}",
        "reweigh",
    )


def test_half_precision_logits_give_half_precision_log_probabilities(differ):
    g = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(1, 64, 150_000, generator=g)).bfloat16()
    token = torch.randint(150_000, (1, 64), generator=g)
    theirs = selective_log_softmax(logits, token)
    assert theirs.dtype == torch.bfloat16
    exact = logits.float().log_softmax(-1).gather(-1, token.unsqueeze(-1)).squeeze(-1)
    error = float((theirs.float() - exact).abs().max())
    assert error > 0.01
    segments = rw.Segments.packed([64])
    with pytest.raises(ValueError, match="compute it in float32"):
        rw.log_ratios(theirs[0], exact[0], segments)
    differ(
        "trl",
        "largest error of `selective_log_softmax` of bfloat16 logits, 150,000 tokens, in nats",
        f"{error:.3f}",
        "refuses log-probabilities in half precision",
        "reweigh: rounding of 0.06 a token is no ratio",
    )
