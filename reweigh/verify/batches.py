"""Expectations over every batch that there is: of one trajectory, or of two."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.recipes.groups import Grouped
from reweigh.verify.cases import PER_STEP, Case

Loss = Callable[..., Tensor]
"""From a sample and inputs by name to a scalar."""


def mean_gradient(loss: Loss, case: Case, inputs: dict[str, Any], *, size: int) -> Tensor:
    """`-Σ p(batch) ∇loss(batch)` over every batch of `size` independent trajectories.

    Args:
        loss: Of a batch; the trajectories of a batch may depend on each other in it.
        case: Every trajectory, with its probability.
        inputs: What the loss takes beside the sample, for all trajectories.
        size: 1 or 2.
    """
    lengths = case.segments.lengths
    mean = torch.zeros((), dtype=torch.float64)
    # Batches whose episodes have the same lengths share their segments, and run as one.
    for shape in itertools.product(lengths.unique().tolist(), repeat=size):
        choices = [(lengths == length).nonzero().squeeze(1) for length in shape]
        members = torch.cartesian_prod(*choices).reshape(-1, size)
        steps = torch.cat(
            [
                case.segments.start[episode].unsqueeze(1) + torch.arange(length)
                for episode, length in zip(members.T, shape, strict=True)
            ],
            dim=1,
        )
        losses = _losses(loss, case.sample, inputs, members, steps, Segments.packed(shape))
        mean = mean + (case.probability[members].prod(1) * losses).sum()
    return case.gradient(-mean)


def _losses(
    loss: Loss,
    sample: Sample,
    inputs: dict[str, Any],
    members: Tensor,
    steps: Tensor,
    segments: Segments,
) -> Tensor:
    """The loss of each batch of one shape, `[batches]`."""
    behaviour, rewards = sample.log_prob_behaviour, sample.require_rewards()
    assert behaviour is not None
    mapped, constant = {}, {}
    for name, x in inputs.items():
        if isinstance(x, Grouped):  # a batch is one group
            one = torch.zeros_like(segments.start)
            mapped[name], constant[name] = x.returns[members], (one, 1)
        elif name in PER_STEP:
            mapped[name] = x[steps]
        elif name == "log_prob_sources":
            mapped[name] = x[:, steps].movedim(1, 0)
        elif isinstance(x, Tensor) and len(x) == len(sample):
            mapped[name] = x[members]
        else:
            constant[name] = x

    def one_loss(target: Tensor, behaviour: Tensor, rewards: Tensor, given: dict[str, Tensor]):
        batch = replace(
            sample,
            log_prob_target=target,
            log_prob_behaviour=behaviour,
            rewards=rewards,
            segments=segments,
            shape=None,
        )
        arguments = {**constant, **given}
        for name in given.keys() & constant.keys():
            arguments[name] = Grouped(given[name], *constant[name])
        return loss(batch, **arguments)

    return torch.vmap(one_loss)(
        sample.log_prob_target[steps], behaviour[steps], rewards[steps], mapped
    )
