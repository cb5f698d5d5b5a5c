"""A policy beside a log: whether it is of the same space, and its log-probabilities."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent

from reweigh.contracts import one_line
from reweigh.data.batch import Batch
from reweigh.data.schema import TrajectorySchema

AT_ONCE = 65_536
"""Steps that a policy is evaluated on at once."""


@torch.no_grad()
def log_prob(policy: nn.Module, batch: Batch, *, at_once: int = AT_ONCE) -> Tensor:
    """`log π(a_t | s_t)` of every logged step.

    Args:
        policy: A module from observations `[B, *observation]` to a distribution over `B` actions.
        batch: The logged steps.
        at_once: Steps that the policy is evaluated on at once.

    Returns:
        `[S]` float64; `-inf` where the distribution says that the policy never takes the action.

    Raises:
        ValueError: The policy cannot be given these observations, or is of other actions; it gives
            NaN. Says at which episode and step.
    """
    parts = [torch.zeros(0, dtype=torch.float64)]
    for observations, actions in zip(
        batch.observations.split(at_once), batch.actions.split(at_once), strict=True
    ):
        distribution = act(policy, observations)
        if len(parts) == 1:
            _require_same_actions(distribution, batch)
        parts.append(_log_prob(distribution, actions))
    log_probs = torch.cat(parts)
    bad = ~(log_probs < torch.inf)
    if bool(bad.any()):
        step = int(bad.nonzero()[0])
        raise ValueError(
            f"the policy gives log-probability {float(log_probs[step])} to the action of "
            f"{_place(batch, step)}: its weights are damaged, or the observation is"
        )
    return log_probs


def act(policy: nn.Module, observations: Tensor) -> Distribution:
    """The policy's distribution at each observation.

    Raises:
        ValueError: It cannot be given such observations, or gives no distribution.
    """
    try:
        distribution = policy(observations)
    except Exception as error:  # foreign code: anything may come out of it
        if "invalid values" in str(error):  # torch.distributions' word for NaN
            detail = one_line(error, most=200).split(", but found")[0]
            raise ValueError(
                "the policy gives its distribution NaN, or numbers that cannot be, for the log's "
                f"observations: {detail}; it is damaged or has diverged"
            ) from error
        raise ValueError(
            f"the policy cannot be given the log's observations, {observations.dtype} "
            f"{list(observations.shape[1:])} each: {one_line(error, most=200)}; is it a policy of "
            "this environment?"
        ) from error
    if not isinstance(distribution, Distribution):
        raise ValueError(
            f"the policy returned {type(distribution).__name__}; it must return a "
            "torch.distributions.Distribution over actions"
        )
    if tuple(distribution.batch_shape) != (len(observations),):
        raise ValueError(
            f"the policy gave distributions of shape {list(distribution.batch_shape)} for "
            f"{len(observations)} observations: it must give one for each"
        )
    return distribution


def _log_prob(distribution: Distribution, actions: Tensor) -> Tensor:
    try:
        return distribution.log_prob(actions).double()
    except Exception as error:  # foreign code: anything may come out of it
        raise ValueError(
            f"the policy cannot tell how likely the log's actions are, {actions.dtype} "
            f"{list(actions.shape[1:])} each: {one_line(error, most=200)}; is it a policy of this "
            "environment?"
        ) from error


def require_choices(policy: nn.Module, schema: TrajectorySchema) -> None:
    """Requires as many choices of the policy as the schema has.

    Raises:
        ValueError: Another number of choices; the policy cannot be given such observations.
    """
    there = schema.action.choices
    nothing = torch.from_numpy(np.zeros((1, *schema.observation.shape), schema.observation.dtype))
    known = choices(act(policy, nothing)) if there else None
    if known is not None and known != max(there):
        raise ValueError(
            f"the policy has {known} actions, and the log's are {list(there)}: it is a policy of "
            "another environment; if the log merely lacks some of them, import it with --choices"
        )


def _require_same_actions(distribution: Distribution, batch: Batch) -> None:
    """Requires logged actions that the policy knows."""
    actions, shape = batch.actions, tuple(distribution.event_shape)
    if shape != tuple(actions.shape[1:]):
        raise ValueError(
            f"the policy's actions have shape {list(shape)}, those of the log "
            f"{list(actions.shape[1:])}: it is a policy of another environment"
        )
    known = choices(distribution)
    if known is None:
        if not actions.is_floating_point() and _is_continuous(distribution):
            raise ValueError(
                f"the policy's actions are continuous, and those of the log are choices, "
                f"{actions.dtype}: it is a policy of another environment"
            )
        return
    outside = ((actions < 0) | (actions >= known)).reshape(len(actions), -1).any(1)
    if bool(outside.any()):
        step = int(outside.nonzero()[0])
        raise ValueError(
            f"the policy has {known} actions, but the log holds action {actions[step].tolist()} "
            f"in {_place(batch, step)}: it is a policy of another environment"
        )


def _place(batch: Batch, step: int) -> str:
    episode = int(batch.episode[batch.segments.episode[step]])
    return f"episode {episode}, step {int(batch.segments.time[step])}"


def _is_continuous(distribution: Distribution) -> bool:
    try:
        support = distribution.support
    except NotImplementedError:  # a distribution of somebody's own need not say
        return False
    return support is not None and not support.is_discrete


def choices(distribution: Distribution) -> int | None:
    """How many choices there are, for each number of an action; None if it is continuous."""
    if isinstance(distribution, Independent):
        return choices(distribution.base_dist)
    return distribution.param_shape[-1] if isinstance(distribution, Categorical) else None
