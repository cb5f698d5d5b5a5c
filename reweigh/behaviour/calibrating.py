"""Calibration of an estimate: each step compared with the model that did not see its episode."""

from dataclasses import dataclass, field

import numpy as np
from torch.distributions import Categorical, Distribution, Independent, Normal

from reweigh.behaviour.calibration import Bin, Calibration, Number, Recorded, Together
from reweigh.behaviour.fitted import Fitted, Material, distribution, log_prob, require_known
from reweigh.behaviour.survey import Survey, columns, rows
from reweigh.data.schema import RECORDED

EDGES = np.array([0.001, 0.003, 0.01, 0.03, *np.arange(1, 10) / 10])
"""Edges of the bins: closer where probabilities are small, since weights divide by them."""
_MIDDLE = {0.5: 0.6744897501960817, 0.95: 1.959963984540054}
_MOST_PAIRED = 512


def calibrate(material: Material, fitted: Fitted) -> Calibration:
    """Calibration of an estimate, from one pass over its log.

    Args:
        material: The log that the estimate was fitted to.
        fitted: The estimate.

    Returns:
        Sums over all steps, which do not depend on how the log is read.

    Raises:
        ValueError: The estimate is NaN for a step; says where.
    """
    survey = material.survey
    measured = _Continuous(survey) if survey.choices is None else _Discrete(survey.choices)
    beside = _Beside() if material.schema.behaviour == RECORDED else None
    held_out = in_sample = 0.0
    for t in material.stream():
        fold, estimated = material.folds.of_steps(t), np.empty(t.steps)
        in_sample += log_prob(distribution(fitted.policies[-1], t.observations), t.actions).sum()
        for k in np.unique(fold).tolist():
            mine = fold == k
            estimate = distribution(fitted.policies[k], t.observations[mine])
            estimated[mine] = log_prob(estimate, t.actions[mine])
            measured.add(estimate, t.actions[mine])
            if beside is not None:
                corrected = fitted.log_prob(k, t.observations[mine], t.actions[mine])
                beside.add(estimated[mine], corrected, t.log_prob_behaviour[mine])
        require_known(estimated, np.isnan(estimated), t)
        held_out += estimated.sum()
    return Calibration(
        episodes=len(survey.episodes),
        steps=survey.steps,
        log_likelihood=float(held_out / survey.steps),
        marginal_log_likelihood=_marginal(survey) / survey.steps,
        in_sample_log_likelihood=float(in_sample / survey.steps),
        reliability=measured.bins() if isinstance(measured, _Discrete) else (),
        numbers=measured.numbers() if isinstance(measured, _Continuous) else (),
        together=measured.pairs.together(),
        recorded=None if beside is None else beside.recorded(),
    )


class _Pairs:
    """Sums of products of residuals, each column belonging to a number of the action."""

    def __init__(self, number: np.ndarray):
        self.number = number
        self.products = np.zeros((len(number), len(number)))
        self.expected = np.zeros_like(self.products)
        self.variance = np.zeros(len(number))

    @property
    def is_measured(self) -> bool:
        return int(self.number[-1]) > 0 and len(self.number) <= _MOST_PAIRED

    def add(self, residuals: np.ndarray, variances: np.ndarray) -> None:
        if self.is_measured:
            self.products += residuals.T @ residuals
            self.expected += variances.T @ variances
            self.variance += variances.sum(0)

    def together(self) -> Together | None:
        """The pair whose correlation is the most standard errors from 0."""
        if not self.is_measured:
            return None
        apart = (self.number[:, None] < self.number) & (self.expected > 0)
        errors = np.where(apart, self.products, 0.0) / np.sqrt(np.where(apart, self.expected, 1.0))
        i, j = np.unravel_index(np.abs(errors).argmax(), errors.shape)
        scale = np.sqrt(self.variance[i] * self.variance[j])
        correlation = float(self.products[i, j] / scale) if scale > 0 else 0.0
        first, second = int(self.number[i]), int(self.number[j])
        return Together(first, second, correlation, float(errors[i, j]))


class _Discrete:
    """Sums over choices: how often a choice of each predicted probability is taken."""

    def __init__(self, choices: tuple[int, ...]):
        self.choices = choices
        self.sums = np.zeros((4, len(EDGES) + 1))  # predicted, its variance, observed, count
        self.pairs = _Pairs(np.repeat(np.arange(len(choices)), choices))

    def add(self, estimate: Distribution, actions: np.ndarray) -> None:
        p = self._probabilities(estimate)
        taken = np.zeros_like(p)
        np.put_along_axis(taken, columns(actions, self.choices), 1.0, axis=1)
        where = np.searchsorted(EDGES, p.ravel(), side="right")
        variance = p * (1 - p)
        for i, x in enumerate((p, variance, taken, np.ones_like(p))):
            self.sums[i] += np.bincount(where, weights=x.ravel(), minlength=self.sums.shape[1])
        self.pairs.add(taken - p, variance)

    def _probabilities(self, estimate: Distribution) -> np.ndarray:
        """Probability of each choice, `[S, Σ choices]`."""
        if isinstance(estimate, Categorical):
            return estimate.probs.double().numpy()
        assert isinstance(estimate, Independent)
        padded = estimate.base_dist.probs.double().numpy()
        return np.concatenate([padded[:, i, :n] for i, n in enumerate(self.choices)], axis=1)

    def bins(self) -> tuple[Bin, ...]:
        return tuple(
            Bin(float(p / n), float(seen / n), int(n), float(np.sqrt(variance) / n))
            for p, variance, seen, n in self.sums.T
            if n > 0
        )


class _Continuous:
    """Sums over real-numbered actions: the spread of standardised residuals."""

    def __init__(self, survey: Survey):
        self.bounds = survey.action_range
        width = self.bounds.shape[1]
        self.sums = np.zeros((6, width))  # count, z, z², in 50 %, in 95 %, at a bound
        self.pairs = _Pairs(np.arange(width))

    def add(self, estimate: Distribution, actions: np.ndarray) -> None:
        assert isinstance(estimate, Independent)
        normal = estimate.base_dist
        assert isinstance(normal, Normal)
        taken = rows(actions)
        z = (taken - rows(normal.loc.numpy())) / rows(normal.scale.numpy())
        inside = [np.abs(z) < end for end in _MIDDLE.values()]
        at_bound = (taken[None] == self.bounds[:, None]).any(0)
        for i, x in enumerate((np.ones_like(z), z, z**2, *inside, at_bound)):
            self.sums[i] += x.sum(0)
        self.pairs.add(z, np.ones_like(z))

    def numbers(self) -> tuple[Number, ...]:
        n = self.sums[0]
        mean, squares, half, most, at_bounds = self.sums[1:] / n
        deviation = np.sqrt(np.maximum(squares - mean**2, 0.0))
        return tuple(
            Number(
                mean=float(mean[i]),
                deviation=float(deviation[i]),
                within_50=float(half[i]),
                within_95=float(most[i]),
                at_bounds=float(at_bounds[i]),
                bounds=(float(self.bounds[0, i]), float(self.bounds[1, i])),
            )
            for i in range(len(n))
        )


@dataclass
class _Beside:
    """Sums of the differences from recorded log-probabilities."""

    count: int = 0
    absolute: float = 0.0
    largest: float = 0.0
    weights: np.ndarray = field(default_factory=lambda: np.zeros(4))

    def add(self, estimated: np.ndarray, corrected: np.ndarray, recorded: np.ndarray) -> None:
        difference = np.abs(estimated - recorded)
        self.count += len(difference)
        self.absolute += float(difference.sum())
        self.largest = max(self.largest, float(difference.max()))
        logs = np.stack([estimated - recorded, recorded - corrected])
        weights = np.exp(np.minimum(logs, 300.0))  # so that the square is a finite float64
        self.weights += np.concatenate([weights.sum(1), (weights**2).sum(1)])

    def recorded(self) -> Recorded:
        mean, square = (self.weights / self.count).reshape(2, 2)
        error = np.sqrt(np.maximum(square - mean**2, 0.0) / self.count)
        return Recorded(
            self.absolute / self.count,
            self.largest,
            mean_weight=float(mean[0]),
            standard_error=float(error[0]),
            behaviour_weight=float(mean[1]),
            behaviour_standard_error=float(error[1]),
        )


def _marginal(survey: Survey) -> float:
    """Log-likelihood of all steps by the actions' distribution in the other folds."""
    return sum(
        (_frequencies if survey.choices is not None else _normal)(survey, k)
        for k in np.unique(survey.folds.of(survey.episodes)).tolist()
    )


def _frequencies(survey: Survey, k: int) -> float:
    """Log-likelihood of the discrete actions in fold k, smoothed by 1/2."""
    assert survey.choices is not None
    others = survey.taken.sum(0) - survey.taken[k] + 0.5
    parts = np.split(others, np.cumsum(survey.choices)[:-1])
    logs = np.concatenate([np.log(part / part.sum()) for part in parts])
    return float(survey.taken[k] @ logs)


def _normal(survey: Survey, k: int) -> float:
    """Log-likelihood of the continuous actions in fold k."""
    own, others = survey.actions_of(k), survey.actions(without=k)
    deviation = np.where(others.deviation > 0, others.deviation, 1.0)
    squares = own.squares + own.size * (own.mean - others.mean) ** 2
    constant = own.size * np.log(deviation * np.sqrt(2 * np.pi))
    return float(-(squares / (2 * deviation**2) + constant).sum())
