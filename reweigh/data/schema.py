"""What the fragments of a log look like: their observations, their actions, and who says so."""

import json
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

_DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)


RECORDED = "recorded"
"""The log-probabilities are those that the behaviour policy gave when it acted."""
MISSING = "missing"
"""Nobody recorded them: they are NaN, and no importance weight can be computed."""


@dataclass(frozen=True)
class ArraySpec:
    """What one observation or one action is.

    Attributes:
        dtype: numpy's name, such as "float32".
        shape: () for a single number.
        choices: if its numbers are choices, how many each of them has, counted from 0: (3,) for an
            action that is 0, 1 or 2, (3, 5) for a pair of choices. Empty for anything else.

    Raises:
        ValueError: the dtype is not a bool, an integer or a float; the numbers of choices do not
            match the shape.
    """

    dtype: str
    shape: tuple[int, ...]
    choices: tuple[int, ...] = ()

    def __post_init__(self):
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; use one of {', '.join(_DTYPES)}.")
        if self.choices and (len(self.choices) != self.size or min(self.choices) < 1):
            raise ValueError(
                f"choices are {self.choices} for an entry of shape {list(self.shape)}; give how "
                "many there are, at least 1, for each of its numbers, or none at all."
            )

    @property
    def size(self) -> int:
        """How many numbers one entry holds."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class TrajectorySchema:
    """What every fragment of one log looks like.

    Attributes:
        environment: the environment's id, such as "CartPole-v1".
        observation: one observation.
        action: one action; a discrete one has shape ().
        discrete_actions: whether `log_prob_behaviour` is of probabilities (at most 0) or of
            densities.
        behaviour: where `log_prob_behaviour` comes from: `RECORDED`, `MISSING`, or, in words, how
            it was estimated from what was logged.
    """

    environment: str
    observation: ArraySpec
    action: ArraySpec
    discrete_actions: bool
    behaviour: str = RECORDED

    @property
    def estimated(self) -> bool:
        """Whether `log_prob_behaviour` was estimated after the fact."""
        return self.behaviour not in (RECORDED, MISSING)

    def to_json(self) -> str:
        """The schema as one line of JSON; `from_json` gives it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The schema that `to_json` wrote.

        Raises:
            ValueError: the text is not such a schema.
        """
        try:
            values = json.loads(text)
            specs = {
                name: ArraySpec(
                    values[name]["dtype"],
                    tuple(values[name]["shape"]),
                    tuple(values[name].get("choices", ())),
                )
                for name in ("observation", "action")
            }
            return cls(**{**values, **specs})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"Not a trajectory schema: {text!r} ({error}).") from error
