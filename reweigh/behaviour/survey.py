"""Sums over a log from one pass: steps, moments, counts of actions."""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import numpy as np

from reweigh.acting.policy import action_choices
from reweigh.data.episodes import Episodes, Folds, require_schema
from reweigh.data.schema import ArraySpec, TrajectorySchema
from reweigh.data.trajectories import Trajectories

_FARTHEST = 1e100
_MOST_STEPS = 65_536
_MOST_NUMBERS = 1 << 24


def at_once(schema: TrajectorySchema) -> int:
    """Steps to hold at once: fewer if observations, or choices of actions, are many."""
    numbers = schema.observation.size + (sum(schema.action.choices) or schema.action.size)
    return max(1, min(_MOST_STEPS, _MOST_NUMBERS // max(numbers, 1)))


class Moments(NamedTuple):
    """Size of a sample of `d` numbers, their mean, and the sum of squared differences from it."""

    size: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, sample: np.ndarray) -> "Moments":
        """Moments of rows `[n, d]`, n ≥ 1."""
        mean = sample.mean(0)
        return cls(len(sample), mean, ((sample - mean) ** 2).sum(0))

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation `[d]`; 0 where numbers differ by rounding alone."""
        deviation = np.sqrt(self.squares / self.size)
        return np.where(deviation > 1e-12 * np.abs(self.mean), deviation, 0.0)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both samples together (Chan et al. 1983, equation 2.1)."""
        size = self.size + other.size
        share, away = other.size / size, other.mean - self.mean
        return Moments(
            size,
            self.mean + share * away,
            self.squares + other.squares + away**2 * share * self.size,
        )


class Survey:
    """Sums over a log: its episodes, and by fold the observations and actions.

    Attributes:
        choices: Number of choices of each number of a discrete action; None if continuous.
        episodes: `[N]` int64, the sorted numbers of the episodes.
        steps: Number of steps.
        highest: `[d]` int64, the largest of each number of an observation; None if not integers.
        negative: Place of the first negative observation, in words.
        action_range: `[2, k]`, minimum and maximum of each number of a continuous action.
        taken: `[folds, Σ choices]` int64, how often each choice of each number was taken.
    """

    def __init__(self, schema: TrajectorySchema, folds: Folds):
        self.schema = schema
        self.folds = folds
        self.choices = action_choices(schema) if schema.discrete_actions else None
        self.episodes = np.empty(0, np.int64)
        self.steps = 0
        self.highest: np.ndarray | None = None
        self.negative: str | None = None
        self.action_range = np.array([[np.inf], [-np.inf]])
        self.taken = np.zeros((folds.count, sum(self.choices or ())), np.int64)
        self._observations: dict[int, Moments] = {}
        self._actions: dict[int, Moments] = {}

    @classmethod
    def of(cls, source: Episodes, folds: Folds) -> "Survey":
        """The sums of a log.

        Raises:
            ValueError: It has no episode, or all are in one fold; the number of choices is unknown.
        """
        schema = require_schema(source)
        survey = cls(schema, folds)
        numbers = [survey.episodes]
        for t in source.stream_episodes(max_steps=at_once(schema)):
            numbers.append(np.unique(t.episode))
            survey._add(t)
        survey.episodes = np.unique(np.concatenate(numbers))
        used = len(np.unique(folds.of(survey.episodes)))
        if used < 2:
            raise ValueError(
                f"the log has {len(survey.episodes)} episodes, in {used} of {folds.count} folds: "
                "an episode's log-probabilities come from a model of other folds; log more episodes"
            )
        return survey

    def observations(self, *, without: int) -> Moments:
        """Moments of the flattened observations of all folds but one."""
        return _without(without, self._observations)

    def actions(self, *, without: int) -> Moments:
        """Moments of the flattened continuous actions of all folds but one."""
        return _without(without, self._actions)

    def actions_of(self, fold: int) -> Moments:
        """Moments of the flattened continuous actions of one fold."""
        return self._actions[fold]

    def _add(self, t: Trajectories) -> None:
        self.steps += t.steps
        fold = self.folds.of_steps(t)
        for name, column in (("observations", t.observations), ("actions", t.actions)):
            _require_measurable(name, column, t)
        if is_integer(self.schema.observation):
            self._add_integers(t)
        if self.choices is None:
            actions = rows(t.actions)
            low, high = self.action_range
            self.action_range = np.stack(
                [np.minimum(low, actions.min(0)), np.maximum(high, actions.max(0))]
            )
        else:
            actions = None
            np.add.at(self.taken, (fold[:, None], columns(t.actions, self.choices)), 1)
        observations = rows(t.observations)
        for k in np.unique(fold).tolist():
            _add(self._observations, k, observations[fold == k])
            if actions is not None:
                _add(self._actions, k, actions[fold == k])

    def _add_integers(self, t: Trajectories) -> None:
        observations = t.observations.reshape(t.steps, -1).astype(np.int64)
        highest = observations.max(0)
        self.highest = highest if self.highest is None else np.maximum(highest, self.highest)
        below = (observations < 0).any(1)
        if self.negative is None and below.any():
            self.negative = t.place(int(below.argmax()))


def rows(x: np.ndarray) -> np.ndarray:
    """Entries as rows of float64, `[S, d]`."""
    return x.reshape(len(x), -1).astype(np.float64)


def columns(actions: np.ndarray, choices: Iterable[int]) -> np.ndarray:
    """Column of each number's choice among all choices side by side, `[S, k]` int64."""
    first = np.cumsum([0, *choices])[:-1]
    return actions.reshape(len(actions), -1).astype(np.int64) + first


def is_integer(spec: ArraySpec) -> bool:
    """Whether the numbers of an entry are integers or bools."""
    return not spec.dtype.startswith("float")


def _add(by_fold: dict[int, Moments], k: int, sample: np.ndarray) -> None:
    moments = Moments.of(sample)
    by_fold[k] = by_fold[k].merge(moments) if k in by_fold else moments


def _without(fold: int, by_fold: dict[int, Moments]) -> Moments:
    return reduce(Moments.merge, (m for k, m in sorted(by_fold.items()) if k != fold))


def _require_measurable(name: str, column: np.ndarray, t: Trajectories) -> None:
    """Requires numbers whose squares are finite.

    Raises:
        ValueError: A number that is too large; says where.
    """
    far = (np.abs(rows(column)) > _FARTHEST).any(1)
    if far.any():
        step = int(far.argmax())
        raise ValueError(
            f"{name}: {column[step].tolist()} in {t.place(step)} is too large to be measured by "
            "mean and deviation; leave that episode out"
        )
