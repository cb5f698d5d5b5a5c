"""Whole recipes against verl's: its advantages, its correction, its loss and its divisor."""

import pytest
import torch
from padded_verl import check, config
from rollouts import rollouts
from verl.trainer.ppo import core_algos, rollout_corr_helper

from reweigh import recipes

GROUP = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 1])
UNBOUNDED = 1e30  # verl has no way to leave the dual clip out


def outcomes(batch):
    """Rewards `[B, T]` with each row's score at its last token."""
    outcome = torch.zeros_like(batch.rewards)
    outcome[torch.arange(len(outcome)), batch.mask.float().cumsum(1).argmax(1)] = batch.scores
    return outcome


RECIPES = {
    "grpo": ("vanilla", "seq-mean-token-mean", {"clip": 0.2}),
    "dapo": ("vanilla", "token-mean", {"clip": 0.2, "clip_high": 0.28}),
    "dr_grpo": ("vanilla", "seq-mean-token-sum-norm", {"clip": 0.2, "horizon": 15}),
    "gspo": ("gspo", "seq-mean-token-mean", {"clip": 0.2, "clip_high": 0.28}),
    "cispo": ("cispo", "token-mean", {"minimum": 0.8, "maximum": 1.28}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_groups(agree, name):
    loss, mode, knobs = RECIPES[name]
    batch = rollouts(51, rows=len(GROUP))
    mask = batch.mask.float()
    gain, _ = core_algos.compute_grpo_outcome_advantage(
        outcomes(batch), mask, GROUP.numpy(), norm_adv_by_std_in_grpo=name != "dr_grpo"
    )
    high = 0.28 if name in ("dapo", "gspo", "cispo") else 0.2
    settings = config(clip_ratio_c=UNBOUNDED, clip_ratio_high=high)
    theirs, _ = core_algos.get_policy_loss_fn(loss)(
        batch.old, batch.target, gain, mask, mode, settings
    )
    ours = getattr(recipes, name)(batch.sample(), recipes.Grouped(batch.scores, GROUP, 3), **knobs)
    row = f"`compute_grpo_outcome_advantage`, `{loss}` loss, {mode}"
    check(agree, row, f"recipes.{name}(...)", batch, ours, theirs)


def test_rloo(agree):
    batch = rollouts(52, rows=len(GROUP))
    mask = batch.mask.float()
    gain, _ = core_algos.compute_rloo_outcome_advantage(outcomes(batch), mask, GROUP.numpy())
    theirs, _ = core_algos.compute_policy_loss_reinforce(
        batch.old, batch.target, gain, mask, "seq-mean-token-sum", config()
    )
    ours = recipes.rloo(batch.sample(), recipes.Grouped(batch.scores, GROUP, 3))
    row = "`compute_rloo_outcome_advantage`, `compute_policy_loss_reinforce`"
    check(agree, row, "recipes.rloo(...)", batch, ours, theirs)


@pytest.mark.parametrize("name", ["ppo", "decoupled_ppo", "tis", "icepop"])
def test_mismatch(agree, name):
    batch = rollouts(54)
    mask = batch.mask.float()
    threshold = {"tis": 1.5, "icepop": "0.7_1.6", "decoupled_ppo": UNBOUNDED, "ppo": None}[name]
    given = None
    if threshold is not None:
        given, _ = rollout_corr_helper.compute_rollout_correction_weights(
            batch.old - batch.sampler, mask, "token", threshold
        )
    mode = "seq-mean-token-sum" if name == "ppo" else "token-mean"
    theirs, _ = core_algos.compute_policy_loss_vanilla(
        batch.old,
        batch.target,
        batch.advantages,
        mask,
        mode,
        config(clip_ratio_c=UNBOUNDED, clip_ratio_high=0.2),
        rollout_is_weights=given,
    )
    knobs = {"tis": {"maximum": 1.5}, "icepop": {"minimum": 0.7, "maximum": 1.6}}.get(name, {})
    proximal = [] if name == "ppo" else [batch.flat(batch.old)]
    sample = batch.sample(batch.old if name == "ppo" else batch.sampler)
    advantages = batch.flat(batch.advantages)
    ours = getattr(recipes, name)(sample, *proximal, advantages, clip=0.2, **knobs)
    row = f"`compute_policy_loss_vanilla`, {mode}"
    if threshold is not None:
        row = f"`compute_rollout_correction_weights`, {row}"
    check(agree, row, f"recipes.{name}(...)", batch, ours, theirs)
