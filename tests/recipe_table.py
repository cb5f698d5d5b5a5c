"""What every recipe takes beside its sample, and its coefficient of the score on its own data."""

from dataclasses import replace

import torch
from core_batches import GAMMA, Steps, ragged
from torch import Tensor

from reweigh import recipes
from reweigh.core import advantages


def pairs(log_prob: Tensor) -> Tensor:
    """Rows `[S, 2]` of a policy that takes the logged action, 0, with this log-probability."""
    return torch.stack([log_prob, (-log_prob.clamp(max=-1e-9).expm1()).log()], dim=1)


def critic_rows(b: Steps) -> Tensor:
    """`[S, 2]`: a critic's value of the logged action and of the other one."""
    return torch.stack([b.values, b.advantages], dim=1)


def first_action(b: Steps) -> Tensor:
    return torch.zeros_like(b.target).long()


def robust(b: Steps) -> tuple[Tensor, Tensor]:
    """Values and action values of that critic."""
    return recipes.expected_value(b.sample, pairs(b.target), critic_rows(b)), b.values


def group(b: Steps) -> Tensor:
    return b.numbers % 2


def grouped(b: Steps) -> tuple[recipes.Grouped]:
    return (recipes.Grouped(b.bootstrap, group(b), 2),)


def age(b: Steps) -> Tensor:
    return torch.where(b.values > 0, 1, 2)


def policy_weights(b: Steps) -> Tensor:
    shares = torch.tensor([0.25, 0.75], device=b.device)
    return recipes.policy_weights(age(b), shares=shares, mean_age=1.25)


def nothing(b: Steps) -> tuple:
    return ()


INPUTS = {
    **dict.fromkeys(
        (
            *("behaviour", "importance_sampling", "per_decision"),
            *("weighted_importance_sampling", "weighted_per_decision"),
            *("truncated_importance_sampling", "pareto_smoothed"),
            *("reinforce", "step", "behaviour_continuation", "trajectory"),
        ),
        nothing,
    ),
    **dict.fromkeys(("doubly_robust", "weighted_doubly_robust"), robust),
    "balance_heuristic": lambda b: (
        torch.cat([b.behaviour.unsqueeze(0), b.sources]),
        torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64, device=b.device),
    ),
    "power_mean": lambda b: (
        torch.stack([b.behaviour, b.behaviour]),
        group(b),
        torch.tensor([1.5, 3.0], device=b.device),
    ),
    "state_marginal": lambda b: (b.values, b.advantages),
    "impala": lambda b: (b.values, b.bootstrap),
    "retrace": lambda b: (b.values, b.values, b.bootstrap),
    "acer": lambda b: (
        *(pairs(b.target), pairs(b.behaviour), first_action(b), critic_rows(b), b.bootstrap),
    ),
    **dict.fromkeys(("trpo", "ppo", "awr"), lambda b: (b.advantages,)),
    "geppo": lambda b: (b.advantages, b.behaviour - 0.1),
    "pois": lambda b: (b.values.abs(),),
    **dict.fromkeys(("grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo"), grouped),
    "topr": lambda b: (b.bootstrap,),
    **dict.fromkeys(("tis", "decoupled_ppo"), lambda b: (b.behaviour + 0.3, b.advantages)),
    "icepop": lambda b: (b.sources[0], b.advantages),
}

KNOBS = {
    "truncated_importance_sampling": {"maximum": 1.2, "lowest_return": -100.0},
    "retrace": {"trace_lambda": 0.8},
    "acer": {"maximum": 1.2},
    "awr": {"temperature": 0.5, "maximum": 3.0},
    "geppo": {"clip": 0.2 / 1.25},
    "pois": {"delta": 0.4},
    "dr_grpo": {"horizon": 9},
    "dapo": {"clip_high": 0.3},
    "gspo": {"clip": 0.2, "clip_high": 0.3},
    "cispo": {"maximum": 1.3, "minimum": 0.5},
    "tis": {"maximum": 1.1},
    "icepop": {"minimum": 0.5, "maximum": 2.0},
}


def knobs(name: str, b: Steps) -> dict:
    """Knobs of a recipe on these steps."""
    if name == "power_mean":
        return {"episodes": [(len(b.segments) + 1) // 2, max(len(b.segments) // 2, 1)]}
    if name == "geppo":
        return {"policy_weights": policy_weights(b), **KNOBS[name]}
    return KNOBS.get(name, {})


def loss(name: str, b: Steps, **other) -> Tensor:
    """The loss of a recipe on these steps."""
    return recipes.ALL[name](b.sample, *INPUTS[name](b), **{**knobs(name, b), **other})


def own_data(lengths: list[int], seed: int) -> Steps:
    """A batch that the target itself sampled."""
    b = ragged(lengths, seed)
    return replace(
        b,
        behaviour=b.target.clone(),
        sources=b.target.expand(3, -1).clone(),
        target=b.target.clone().requires_grad_(),
    )


def plain_coefficients(name: str, b: Steps) -> Tensor | None:
    """What multiplies the score if the data are the policy's own, by the textbook, divided."""
    segments, count, sample = b.segments, len(b.segments), b.sample
    steps = segments.lengths.double()
    scores, own = b.bootstrap, group(b)
    if name in ("pois", "acer", "geppo", "tis", "decoupled_ppo", "icepop", "power_mean"):
        return None  # their own tests say what they are
    if name in ("state_marginal", "doubly_robust", "weighted_doubly_robust"):
        return None
    if name == "weighted_per_decision":
        return None  # a baseline of time
    if name == "behaviour":
        return torch.zeros_like(b.target)
    if name == "importance_sampling":
        return segments.spread(sample.returns) / count
    if name == "truncated_importance_sampling":
        return segments.spread(sample.returns + 100) / count
    if name in ("weighted_importance_sampling", "pareto_smoothed"):
        return segments.spread(sample.returns - sample.returns.mean()) / count
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
    if name == "behaviour_continuation":
        return sample.reward_to_go / count
    return sample.reward_to_go * sample.discount_from_start / count


def _gae(b: Steps, trace_lambda: float) -> Tensor:
    return advantages.gae(
        b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA, trace_lambda=trace_lambda
    )
