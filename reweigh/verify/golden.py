"""Reading a golden file: small problems of which everything is known exactly.

The file that ships with the package holds three Markov decision processes, a batch of trajectories
of each, and what every estimator gives on the batch and in expectation.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from reweigh.verify import problem as exact

T = TypeVar("T")

SHIPPED = Path(__file__).parent.parent / "golden.json"


def load(path: str | Path | None = None) -> dict[str, Any]:
    """Reads a golden file, the shipped one unless a path is given.

    Raises:
        ValueError: The file cannot be read, or is not of the golden format.
    """
    path = SHIPPED if path is None else Path(path)
    try:
        golden = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a readable golden file: {error}") from None
    if not isinstance(golden, dict) or golden.get("version") != 1:
        raise ValueError(f'{path} is not a golden file of version 1: it must say "version": 1')
    entry(golden, "problems", list)
    entry(golden, "numerics", dict)
    return golden


def entry(where: dict[str, Any], key: str, kind: type[T]) -> T:
    """The value at `key`, of the given type.

    Raises:
        ValueError: It is missing or of another type.
    """
    if not isinstance(where, dict):
        raise ValueError(
            f"golden file: {key!r} is looked for in {type(where).__name__}, not a dict"
        )
    value = where.get(key)
    if not isinstance(value, kind):
        found = "is missing" if key not in where else f"is {type(value).__name__}"
        raise ValueError(f"golden file: {key!r} {found}, expected {kind.__name__}")
    return value


def number(where: dict[str, Any], key: str) -> float:
    """The number at `key`, which JSON may write as an integer.

    Raises:
        ValueError: It is missing or no number.
    """
    value = entry(where, key, object)
    return float(entry(where, key, int if isinstance(value, int) else float))


def indices(where: dict[str, Any], key: str, bound: int, *shape: int) -> Tensor:
    """The int64 tensor at `key`, of the given shape (-1: any length), all in [0, bound).

    Raises:
        ValueError: As `tensor`, or a number outside.
    """
    value = tensor(where, key, *shape)
    if not bool(((value >= 0) & (value < bound)).all()):
        raise ValueError(f"golden file: {key!r} must hold integers from 0 to {bound - 1}")
    return value.long()


def tensor(where: dict[str, Any], key: str, *shape: int) -> Tensor:
    """The float64 tensor at `key`, of the given shape (-1: any length).

    Raises:
        ValueError: It is missing, is not numbers, or has another shape.
    """
    try:
        value = torch.tensor(entry(where, key, list), dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"golden file: {key!r} is not an array of numbers: {error}") from None
    if value.dim() != len(shape) or any(
        want not in (-1, got) for want, got in zip(shape, value.shape, strict=True)
    ):
        raise ValueError(
            f"golden file: {key!r} has shape {list(value.shape)}, expected {list(shape)}"
        )
    return value


@dataclass(frozen=True)
class Problem:
    """A Markov decision process with a target and a behaviour, and its exact values."""

    name: str
    horizon: int
    discount: float
    initial: Tensor
    """`[states]`: probability of starting there."""
    transition: Tensor
    """`[states, actions, states]`: probability of the next state."""
    reward: Tensor
    """`[states, actions, states]`."""
    terminal: list[bool]
    logits: dict[str, Tensor]
    """Policies by name, each `[states, actions]`; `theta`, the target, requires gradients."""
    value: dict[str, Tensor]
    """Values under `theta` and `phi`, each `[horizon + 1, states]`."""
    action_value: dict[str, Tensor]
    """Action values under `theta` and `phi`, and a wrong `critic`; `[horizon, states, actions]`."""
    occupancy: dict[str, Tensor]
    """`[horizon, states]`: probability of being in a state at a time, under `theta` and `phi`."""

    @cached_property
    def exact(self) -> exact.Problem:
        """The same process in NumPy: the independent path to values and gradients."""
        return exact.Problem(
            name=self.name,
            horizon=self.horizon,
            discount=self.discount,
            initial=self.initial.numpy(),
            transition=self.transition.numpy(),
            reward=self.reward.numpy(),
            terminal=np.array(self.terminal),
        )

    def table(self, policy: str) -> np.ndarray:
        """Logits `[states, actions]` of a policy, in NumPy."""
        return self.logits[policy].detach().numpy()

    def sources(self, batch: dict[str, Any]) -> list[str]:
        """The policies that sampled a batch of several.

        Raises:
            ValueError: One of them is none of the problem's.
        """
        sources = entry(batch, "sources", list)
        if unknown := set(sources) - set(self.logits):
            raise ValueError(f"golden file: a batch names sources that are no policy: {unknown}")
        return sources

    @property
    def states(self) -> int:
        """How many states there are."""
        return self.transition.shape[0]

    @property
    def actions(self) -> int:
        """How many actions there are."""
        return self.transition.shape[1]

    @classmethod
    def read(cls, problem: dict[str, Any]) -> "Problem":
        """Builds the problem from its entry in the golden file."""
        s, a, horizon = (entry(problem, key, int) for key in ("S", "A", "H"))
        exact = entry(problem, "exact", dict)
        names = ("theta", "phi", "phi1", "phi2")
        logits = {name: tensor(problem, name, s, a) for name in names}
        logits["theta"].requires_grad_()
        return cls(
            name=entry(problem, "name", str),
            horizon=horizon,
            discount=number(problem, "gamma"),
            initial=tensor(problem, "p0", s),
            transition=tensor(problem, "P", s, a, s),
            reward=tensor(problem, "R", s, a, s),
            terminal=[bool(end) for end in entry(problem, "terminal", list)],
            logits=logits,
            value={z: tensor(exact, f"V_{z}", horizon + 1, s) for z in ("theta", "phi")},
            action_value={
                "theta": tensor(exact, "Q_theta", horizon, s, a),
                "phi": tensor(exact, "Q_phi", horizon, s, a),
                "critic": tensor(problem, "Qhat", horizon, s, a),
            },
            occupancy={z: tensor(exact, f"occ_{z}", horizon, s) for z in ("theta", "phi")},
        )

    def target_action_value(self) -> Tensor:
        """`Q^θ`, `[horizon, states, actions]`, differentiable in the target's logits.

        All times at once: `V = r + γ P V`, where `P` leads from each time to the next.
        """
        alive = 1 - torch.tensor(self.terminal, dtype=torch.float64)
        policy = self.logits["theta"].softmax(1) * alive.unsqueeze(1)
        reward = (self.transition * self.reward).sum(2)
        step = torch.einsum("sa,sat->st", policy, self.transition)
        later = torch.ones(self.horizon - 1).double().diag(1)
        one_step = (policy * reward).sum(1).repeat(self.horizon)
        system = torch.eye(len(one_step)).double() - self.discount * torch.kron(later, step)
        value = torch.linalg.solve(system, one_step).reshape(self.horizon, self.states)
        return reward + self.discount * torch.einsum("sau,tu->tsa", self.transition, later @ value)
