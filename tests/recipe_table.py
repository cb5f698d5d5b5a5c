"""Every recipe on one kind of batch, and its coefficient of the score on its own data."""

from dataclasses import replace

import torch
from core_batches import Batch, ragged
from torch import Tensor

from reweigh import recipes
from reweigh.core import advantages, returns

GAMMA = 0.9


def pairs(log_prob: Tensor) -> Tensor:
    """Rows `[S, 2]` of a policy that takes the logged action, 0, with this log-probability."""
    return torch.stack([log_prob, (-log_prob.clamp(max=-1e-9).expm1()).log()], dim=1)


def group(b: Batch) -> Tensor:
    return b.numbers % 2


def age(b: Batch) -> Tensor:
    return torch.where(b.values > 0, 1, 2)


def on_rewards(recipe):
    return lambda b: recipe(b.target, b.behaviour, b.rewards, b.segments, discount=GAMMA)


def on_groups(recipe, **knobs):
    return lambda b: recipe(
        b.target, b.behaviour, b.bootstrap, group(b), b.segments, groups=2, **knobs
    )


RECIPES = {
    "reinforce": lambda b: recipes.reinforce(b.target, b.rewards, b.segments, discount=GAMMA),
    "step": on_rewards(recipes.step),
    "seed": on_rewards(recipes.seed),
    "per_decision": on_rewards(recipes.per_decision),
    "trajectory": on_rewards(recipes.trajectory),
    "balance_heuristic": lambda b: recipes.balance_heuristic(
        b.target,
        torch.cat([b.behaviour.unsqueeze(0), b.sources]),
        torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64, device=b.device),
        b.rewards,
        b.segments,
        discount=GAMMA,
    ),
    "power_mean": lambda b: recipes.power_mean(
        b.target,
        torch.stack([b.behaviour, b.behaviour]),
        group(b),
        torch.tensor([1.5, 3.0], device=b.device),
        b.rewards,
        b.segments,
        episodes=[(len(b.segments) + 1) // 2, max(len(b.segments) // 2, 1)],
        discount=GAMMA,
    ),
    "impala": lambda b: recipes.impala(
        b.target, b.behaviour, b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA
    ),
    "retrace": lambda b: recipes.retrace(
        b.target,
        b.behaviour,
        b.rewards,
        b.values,
        b.values,
        b.bootstrap,
        b.segments,
        discount=GAMMA,
        trace_lambda=0.8,
    ),
    "acer": lambda b: recipes.acer(
        pairs(b.target),
        pairs(b.behaviour),
        torch.zeros_like(b.target).long(),
        b.rewards,
        torch.stack([b.values, b.advantages], dim=1),
        b.bootstrap,
        b.segments,
        discount=GAMMA,
        maximum=1.2,
    ),
    "doubly_robust": lambda b: recipes.doubly_robust(
        pairs(b.target),
        b.behaviour,
        torch.zeros_like(b.target).long(),
        b.rewards,
        torch.stack([b.values, b.advantages], dim=1),
        b.segments,
        discount=GAMMA,
    ),
    "state_marginal": lambda b: recipes.state_marginal(
        b.target, b.behaviour, b.values, b.advantages, b.segments, discount=GAMMA
    ),
    "trpo": lambda b: recipes.trpo(b.target, b.behaviour, b.advantages, b.segments),
    "ppo": lambda b: recipes.ppo(b.target, b.behaviour, b.advantages, b.segments, clip=0.2),
    "awr": lambda b: recipes.awr(b.target, b.advantages, b.segments, temperature=0.5, maximum=3.0),
    "geppo": lambda b: recipes.geppo(
        b.target,
        b.behaviour - 0.1,
        b.behaviour,
        b.advantages,
        age(b),
        b.segments,
        shares=torch.tensor([0.25, 0.75], device=b.device),
        clip=0.2,
        mean_age=1.25,
    ),
    "pois": lambda b: recipes.pois(
        b.target, b.behaviour, b.rewards, b.values.abs(), b.segments, discount=GAMMA, delta=0.4
    ),
    "grpo": on_groups(recipes.grpo, clip=0.2),
    "dr_grpo": on_groups(recipes.dr_grpo, clip=0.2, horizon=9),
    "dapo": on_groups(recipes.dapo, clip=0.2, clip_high=0.3),
    "rloo": lambda b: recipes.rloo(b.target, b.bootstrap, group(b), b.segments, groups=2),
    "gspo": on_groups(recipes.gspo, clip=0.2, clip_high=0.3),
    "cispo": on_groups(recipes.cispo, maximum=1.3, minimum=0.5),
    "tis": lambda b: recipes.tis(
        b.target, b.behaviour + 0.3, b.behaviour, b.advantages, b.segments, clip=0.2, maximum=1.1
    ),
    "decoupled_ppo": lambda b: recipes.decoupled_ppo(
        b.target, b.behaviour + 0.3, b.behaviour, b.advantages, b.segments, clip=0.2
    ),
    "icepop": lambda b: recipes.icepop(
        b.target,
        b.sources[0],
        b.behaviour,
        b.advantages,
        b.segments,
        clip=0.2,
        minimum=0.5,
        maximum=2.0,
    ),
    "topr": lambda b: recipes.topr(b.target, b.behaviour, b.bootstrap, b.segments),
}


def own_data(lengths: list[int], seed: int) -> Batch:
    """A batch that the target itself sampled."""
    b = ragged(lengths, seed)
    return replace(
        b,
        behaviour=b.target.clone(),
        sources=b.target.expand(3, -1).clone(),
        target=b.target.clone().requires_grad_(),
    )


def plain_coefficients(name: str, b: Batch) -> Tensor | None:
    """What multiplies the score if the data are the policy's own, by the textbook, divided."""
    segments, count = b.segments, len(b.segments)
    steps = segments.lengths.double()
    scores, own = b.bootstrap, group(b)
    if name in ("pois", "acer", "geppo", "tis", "decoupled_ppo", "icepop", "power_mean"):
        return None  # their own tests say what they are
    if name in ("state_marginal", "doubly_robust"):
        return None
    if name in ("trpo", "ppo"):
        return b.advantages / count
    if name == "impala":
        return _gae(b, 1.0) / count
    if name == "retrace":
        return _gae(b, 0.8) / count
    if name in ("grpo", "gspo"):
        relative = advantages.group_relative(scores, own, groups=2)
        return segments.spread(relative / steps) / count
    if name in ("dapo", "cispo"):
        relative = advantages.group_relative(scores, own, groups=2)
        return segments.spread(relative) / steps.sum()
    if name == "dr_grpo":
        return segments.spread(advantages.group_centred(scores, own, groups=2)) / (count * 9)
    if name == "rloo":
        return segments.spread(advantages.leave_one_out(scores, own, groups=2)) / count
    if name == "awr":
        return (b.advantages / 0.5).exp().clamp(max=3.0) / count
    if name == "topr":
        return segments.spread(scores) / count
    continuation = returns.reward_to_go(b.rewards, segments, discount=GAMMA)
    if name != "seed":
        continuation = continuation * returns.discount_from_start(segments, discount=GAMMA)
    return continuation / count


def _gae(b: Batch, trace_lambda: float) -> Tensor:
    return advantages.gae(
        b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA, trace_lambda=trace_lambda
    )
