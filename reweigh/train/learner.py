"""What learns: a policy, a value function and their optimiser."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reweigh.acting.networks import ValueFunction
from reweigh.acting.policy import build
from reweigh.acting.standardised import Standardised


@dataclass
class Learner:
    """A policy, a value function and their optimiser."""

    policy: nn.Module
    value: ValueFunction
    optimiser: torch.optim.Adam

    @classmethod
    def create(cls, description: str, *, seed: int, learning_rate: float) -> "Learner":
        """Make new networks; `description` is the policy's, as `policy.build` reads it.

        The global random state is neither used nor changed.
        """
        arguments = json.loads(description)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            policy = build(description)
            value = ValueFunction(
                arguments["observation_shape"],
                arguments["observation_classes"],
                arguments["hidden"],
                standardise=arguments.get("standardise", False),
                memory=arguments.get("memory", 1),
            )
        parameters = [*policy.parameters(), *value.parameters()]
        return cls(policy, value, torch.optim.Adam(parameters, lr=learning_rate, fused=True))

    def measure(self, observations: Tensor) -> None:
        """Let policy and value function see observations in units of these, `[S, *observation]`.

        The policy changes with the units, and so does what it would have given its old actions;
        what was logged of them does not.
        """
        assert isinstance(self.policy, Standardised), "it was described so"
        seen = observations.double()
        mean, deviation = seen.mean(0), seen.std(0, correction=0)
        self.policy.measure("observation", mean, deviation)
        self.value.measure(mean, deviation)

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that training goes on from, but the policy's own."""
        tensors = {f"value.{name}": t for name, t in self.value.state_dict().items()}
        for i, parameter in enumerate(self._parameters()):
            for name, tensor in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{i}.{name}"] = tensor
        return tensors

    def load(self, policy: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Go on from a policy's tensors and from what `state` returned beside them."""
        self.policy.load_state_dict(policy)
        value = {n.removeprefix("value."): t for n, t in state.items() if n.startswith("value.")}
        self.value.load_state_dict(value)
        for i, parameter in enumerate(self._parameters()):
            prefix = f"optimiser.{i}."
            self.optimiser.state[parameter] = {
                name.removeprefix(prefix): tensor.clone()
                for name, tensor in state.items()
                if name.startswith(prefix)
            }

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.optimiser.param_groups for p in group["params"])
