"""Policies: modules that map a batch of observations to a distribution over actions.

Anything that is a `torch.nn.Module` and returns a `torch.distributions.Distribution` is a policy;
those here are what reweigh builds by itself, from a description (`build`).
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from reweigh.acting.mixed import MixedPolicy
from reweigh.acting.networks import network
from reweigh.acting.standardised import Standardised
from reweigh.acting.tabular import TabularPolicy, independent_choices
from reweigh.data.schema import TrajectorySchema


class Policy(Protocol):
    """A module from observations `[B, *observation]` to a distribution over `B` actions."""

    def __call__(self, observations: Tensor, /) -> Distribution:
        """Return pi(. | s) for each observation of the batch."""
        ...


class CategoricalPolicy(nn.Module):
    """pi(a | s) = softmax(f(s))_a for `actions` discrete actions, f a network (`networks.network`).

    `observation_classes` is the number of values of a discrete observation, 0 for a Box.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_classes: int,
        actions: int,
        hidden: Sequence[int],
        memory: int = 1,
    ):
        super().__init__()
        self.logits = network(
            observation_shape,
            observation_classes,
            hidden,
            actions,
            output_gain=0.01,
            memory=memory,
        )

    def forward(self, observations: Tensor) -> Categorical:
        """Return a Categorical with batch shape `[B]`."""
        # A NaN is reported by whoever acts, with the policy's version; validation here would
        # print the tensor instead, and costs a third of a small policy's forward pass.
        return Categorical(logits=self.logits(observations), validate_args=False)


class MultiCategoricalPolicy(nn.Module):
    """pi(a | s) = Π_i softmax(f_i(s))_{a_i}: an action is several choices, made independently.

    `choices` is how many there are for each number of an action. f is one network.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_classes: int,
        choices: Sequence[int],
        hidden: Sequence[int],
        memory: int = 1,
    ):
        super().__init__()
        self.choices = list(choices)
        self.logits = network(
            observation_shape,
            observation_classes,
            hidden,
            sum(choices),
            output_gain=0.01,
            memory=memory,
        )

    def forward(self, observations: Tensor) -> Independent:
        """Return an Independent Categorical with batch shape `[B]` and event shape `(k,)`."""
        return independent_choices(self.logits(observations), self.choices)


class GaussianPolicy(nn.Module):
    """pi(a | s) = Normal(f(s), diag(std)²), f a network, std = 3 sigmoid(spread).

    The density is that of the action before any bound of the environment is applied (see
    `environments.make`), so log-probs are exact everywhere, the bounds included. The deviation
    begins at 1, half the width of bounded actions, and stays below 3, where three actions of four
    are at a bound: without an end to it, an entropy bonus would widen the policy for ever.
    """

    widest = 3.0

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_classes: int,
        action_shape: Sequence[int],
        hidden: Sequence[int],
        memory: int = 1,
    ):
        super().__init__()
        self.mean = network(
            observation_shape,
            observation_classes,
            hidden,
            math.prod(action_shape),
            output_gain=0.01,
            memory=memory,
        )
        self.spread = nn.Parameter(torch.full(tuple(action_shape), -math.log(self.widest - 1)))

    def forward(self, observations: Tensor) -> Independent:
        """Return an Independent Normal with batch shape `[B]` and event shape `action_shape`."""
        mean = self.mean(observations).reshape(-1, *self.spread.shape)
        std = self.widest * self.spread.sigmoid()
        normal = Normal(mean, std.expand_as(mean), validate_args=False)
        return Independent(normal, self.spread.ndim, validate_args=False)


BUILT_IN = {
    "categorical": CategoricalPolicy,
    "multi_categorical": MultiCategoricalPolicy,
    "gaussian": GaussianPolicy,
    "tabular": TabularPolicy,
    "mixed": lambda choices, numbers, **seen: MixedPolicy(
        MultiCategoricalPolicy(choices=choices, **seen),
        GaussianPolicy(action_shape=[numbers], **seen),
    ),
}


MOST_CHOICES = 1_000_000
"""More are not choices but names, such as hashes."""


def build(description: str) -> nn.Module:
    """Build the policy that a description names: JSON of `kind` and the constructor's arguments.

    With `"standardise": true` beside them, it sees standardised observations (`Standardised`).

    Raises:
        ValueError: an unknown kind.
    """
    arguments: dict[str, Any] = json.loads(description)
    kind = arguments.pop("kind")
    standardise = arguments.pop("standardise", False)
    if kind not in BUILT_IN:
        raise ValueError(f"policy kind {kind!r} is not one of {sorted(BUILT_IN)}")
    policy = BUILT_IN[kind](**arguments)
    if not standardise:
        return policy
    numbers = arguments["action_shape"] if kind == "gaussian" else None
    return Standardised(policy, arguments["observation_shape"], numbers)


def policy_of(
    schema: TrajectorySchema, hidden: Sequence[int], *, standardise: bool = False, memory: int = 1
) -> str:
    """Describe the built-in policy for the spaces of a log, as `build` reads it.

    Args:
        schema: Of the log. An action is one choice, several choices, or real numbers.
        hidden: Widths of the tanh layers.
        standardise: Whether the policy scales what it sees, as logs of unknown units need.
        memory: How many of the last observations one of the schema's holds.

    Raises:
        ValueError: Actions are discrete, and the schema does not say how many choices there are.
    """
    observation, action = schema.observation, schema.action
    if not schema.discrete_actions:
        kind: dict[str, Any] = {"kind": "gaussian", "action_shape": list(action.shape)}
    elif action_choices(schema) and action.shape == ():
        kind = {"kind": "categorical", "actions": action.choices[0]}
    else:
        kind = {"kind": "multi_categorical", "choices": list(action.choices)}
    classes = observation.choices[0] if observation.choices and observation.shape == () else 0
    _require_few(schema, "observations", (classes,))
    return json.dumps(
        {
            **kind,
            "observation_shape": list(observation.shape),
            "observation_classes": classes,
            "hidden": list(hidden),
            **({"standardise": True} if standardise else {}),
            **({"memory": memory} if memory > 1 else {}),
        }
    )


def action_choices(schema: TrajectorySchema) -> tuple[int, ...]:
    """How many choices there are for each number of a discrete action.

    Raises:
        ValueError: The schema does not say; an action is a table of choices.
    """
    action = schema.action
    if not action.choices:
        raise ValueError(
            f"the log of {schema.environment} does not say how many choices there are for an "
            f"action ({action}), and no policy can be made for it: import it again with --choices"
        )
    if len(action.shape) > 1:
        raise ValueError(
            f"the log of {schema.environment} has actions of shape {list(action.shape)}: import "
            "them as one row of choices"
        )
    _require_few(schema, "actions", action.choices)
    return action.choices


def _require_few(schema: TrajectorySchema, what: str, choices: tuple[int, ...]) -> None:
    if max(choices, default=0) > MOST_CHOICES:
        raise ValueError(
            f"the log of {schema.environment} has {what} of up to {max(choices)} choices, and "
            f"{MOST_CHOICES} at most can be told apart: number those that occur from 0"
        )
