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

MAX_STEPS = 100_000
"""The most steps that are held, and appended, at a time; one longer episode is held whole."""
_MAX_BYTES = 64 << 20
_MOST_CHOICES = 10_000
"""Floats from here on are amounts, whole or not."""

PER_STEP = ("observations", "actions", "rewards", "log_prob_behaviour")
"""The columns of trajectories that hold one entry a step; all others hold one a fragment."""

RECORDED = "recorded"
"""The log-probabilities are those that the behaviour policy gave when it acted."""
MISSING = "missing"
"""Nobody recorded them: they are NaN, and no importance weight can be computed."""

_WITHOUT_LOG_PROBABILITIES = (
    "The probabilities with which the actions were taken are not in the source. No importance "
    "weight exists without them, and none is made up: what weights steps will refuse this log. "
    "The value of the policy that acted is its mean return, which needs none. For more, name the "
    "column that holds them (--log-prob-behaviour, --probabilities), or have them estimated from "
    "the actions (--estimate-behaviour)."
)


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

    @property
    def bytes(self) -> int:
        """The size of one entry."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def in_words(self) -> str:
        """One entry, for a person to read."""
        choices = f" ({' x '.join(map(str, self.choices))} choices)" if self.choices else ""
        return f"{self}{choices}"

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class ObservedSpec:
    """What entries are, seen a part at a time: their dtype and shape, and how many choices.

    Args:
        choices: How many choices there are, if somebody says so.
        is_action: Whether whole numbers of any shape are choices; of observations, only a single
            one is, the number of a state.
    """

    def __init__(self, choices: tuple[int, ...], *, is_action: bool):
        self.choices = choices
        self.is_action = is_action
        self.dtype = np.dtype(bool)
        self.shape: tuple[int, ...] | None = None
        self.highest: np.ndarray | None = None
        self.lowest = 0
        self.has_fractions = False
        """Whether there are floats that cannot be the numbers of choices."""

    def add(self, values: np.ndarray) -> None:
        """Takes more entries into account; those of another shape than the first are ignored."""
        if self.shape is None:
            self.dtype, self.shape = values.dtype, values.shape[1:]
        if values.shape[1:] != self.shape or not len(values):
            return
        self.dtype = np.result_type(self.dtype, values.dtype)
        if values.dtype.kind == "f":
            countable = (values >= 0) & (values < _MOST_CHOICES) & (values == np.floor(values))
            self.has_fractions |= not countable.all()
        if not self.has_fractions:
            highest = values.max(axis=0).astype(np.int64)
            self.highest = highest if self.highest is None else np.maximum(self.highest, highest)
            self.lowest = min(self.lowest, int(values.min()))

    @property
    def is_whole(self) -> bool:
        """Whether all entries are whole numbers by their type."""
        return self.dtype.kind in "iub"

    @property
    def is_choice_as_float(self) -> bool:
        """Whether all floats seen could be the numbers of choices."""
        return self.highest is not None and not (self.is_whole or self.has_fractions)

    @property
    def is_countable(self) -> bool:
        """Whether further entries may raise the number of choices."""
        if self.choices:
            return False
        if self.is_action:
            return self.is_choice_as_float or self.is_whole
        return self.is_whole and self.shape == ()

    def counted(self) -> tuple[int, ...]:
        """How many choices there are if the highest number seen is the last of them."""
        assert self.highest is not None
        return tuple((np.maximum(self.highest, 0).reshape(-1) + 1).tolist())

    def spec(self) -> ArraySpec:
        """One entry."""
        assert self.shape is not None
        is_state = self.shape == () and self.lowest >= 0 and self.dtype.kind != "b"
        if self.choices or (self.is_whole and (self.is_action or is_state)):
            return ArraySpec("int64", self.shape, self.choices or self.counted())
        return ArraySpec(str(self.dtype), self.shape)


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

    @property
    def columns(self) -> dict[str, ArraySpec]:
        """The columns of `Trajectories` in order, each with the dtype and shape of an entry."""
        number, flag, whole = (ArraySpec(dtype, ()) for dtype in ("float64", "bool", "int64"))
        return {
            "observations": self.observation,
            "actions": self.action,
            "rewards": number,
            "log_prob_behaviour": number,
            "lengths": whole,
            "final_observations": self.observation,
            "terminated": flag,
            "truncated": flag,
            "policy_version": whole,
            "episode": whole,
            "seed": whole,
            "time_start": whole,
        }

    @property
    def in_words(self) -> str:
        """The schema in one line, for a person to read."""
        kind = "discrete" if self.discrete_actions else "continuous"
        return (
            f"observations {self.observation.in_words}, {kind} actions {self.action.in_words}, "
            f"log-probabilities {self.behaviour}"
        )

    @property
    def behaviour_notes(self) -> tuple[str, ...]:
        """What cannot be done with a log whose log-probabilities are missing, or estimated."""
        if self.behaviour == MISSING:
            return (_WITHOUT_LOG_PROBABILITIES,)
        if self.estimated:
            return (
                f"The log-probabilities are estimates ({self.behaviour}): what is weighted by them "
                "inherits their errors, and the log says so to whoever opens it.",
            )
        return ()

    def steps_at_a_time(self, most: int) -> int:
        """How many steps to hold at a time: fewer than `most` if they are large, as images are."""
        return rows_at_a_time(self.observation.bytes + self.action.bytes, most)

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


def rows_at_a_time(row_bytes: int, most: int) -> int:
    """How many rows to hold at a time: fewer than `most` if they are large."""
    return max(1, min(most, _MAX_BYTES // (row_bytes + 1)))
