"""Reliability of an estimated behaviour, from episodes that it was not fitted to."""

import math
from dataclasses import dataclass
from typing import NamedTuple

_STANDARD_ERRORS = 4.0
_FACTOR = 1.1
_DEVIATIONS = 0.05
_SHARE = 0.02
_CORRELATION = 0.1
_AT_BOUNDS = 0.01
_EPISODE_FACTOR = 1.5
_WEIGHT = 0.01
_EPISODE_WEIGHT = 0.1


class Bin(NamedTuple):
    """Choices of similar estimated probability, taken at the step or not."""

    predicted: float
    """Mean estimated probability."""
    observed: float
    """Share of the choices that were taken."""
    choices: int
    """Number of choices: each choice of each step counts."""
    standard_error: float
    """Standard error of `observed` if the estimate is right."""


class Number(NamedTuple):
    """One number of a continuous action, as `z = (a - mean(s)) / deviation(s)`."""

    mean: float
    """Mean of z; 0 is expected."""
    deviation: float
    """Root mean square of z around its mean: 1 is expected."""
    within_50: float
    """Share of steps whose Φ(z) lies in the middle half: 0.5 is expected."""
    within_95: float
    """Share of steps whose Φ(z) lies in the middle 95 %."""
    at_bounds: float
    """Share of steps that are exactly at the least or the largest value in the log."""
    bounds: tuple[float, float]
    """Minimum and maximum in the log."""


class Together(NamedTuple):
    """The two numbers of an action whose residuals are most correlated."""

    first: int
    second: int
    correlation: float
    standard_errors: float
    """Distance of the correlation from 0 in standard errors of independent numbers."""


class Recorded(NamedTuple):
    """The estimate compared with the recorded log-probabilities."""

    mean_difference: float
    """Mean absolute difference, nats."""
    largest_difference: float
    """Largest absolute difference, nats."""
    mean_weight: float
    """Mean of estimated over recorded probability: 1 is expected of any estimate."""
    standard_error: float
    """Of that mean."""
    behaviour_weight: float
    """Mean of recorded over estimated probability: a step's weight under the behaviour itself.
    Above 1, weights are too large."""
    behaviour_standard_error: float
    """Of that mean."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of an estimate: each step compared with the model fitted without its episode."""

    episodes: int
    steps: int
    log_likelihood: float
    """Mean log-likelihood of a step, by the model that did not see its episode, nats."""
    marginal_log_likelihood: float
    """The same of a model that looks at no observation, cross-fitted too."""
    in_sample_log_likelihood: float
    """The same of the model that was fitted to all episodes."""
    reliability: tuple[Bin, ...] = ()
    """For discrete actions: the bins that occur, from small to large probabilities."""
    numbers: tuple[Number, ...] = ()
    """For continuous actions: one for each number of an action."""
    together: Together | None = None
    """For actions of several numbers."""
    recorded: Recorded | None = None
    """For a log with recorded log-probabilities."""

    @property
    def expected_calibration_error(self) -> float:
        """`½ Σ_bins choices |observed - predicted| / steps`: misplaced probability.

        With two choices, that of Naeini et al. 2015 (section 2) in uneven bins. An action of k
        numbers has up to k. NaN if actions are continuous.
        """
        if not self.reliability:
            return math.nan
        away = sum(b.choices * abs(b.observed - b.predicted) for b in self.reliability)
        return away / (2 * self.steps)

    @property
    def episode_weight_error(self) -> float:
        """Lower bound of the standard deviation of the logarithm of an episode's weight.

        It is due to the noise of the estimate alone. A model with d parameters, fitted to n steps,
        is about `d / n` nats less likely on other data than on its own (Akaike 1974), and the
        variance of its log-probabilities is the same. An episode of T steps adds them up:
        `√(T gap)`. The deviation is larger if observations recur within an episode, or if the model
        is too small.
        """
        gap = max(self.in_sample_log_likelihood - self.log_likelihood, 0.0)
        return math.sqrt(gap * self.steps / self.episodes)

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the estimate, one sentence each; () if none is seen."""
        return (
            *self._likelihood_problems(),
            *(_bin_problem(b) for b in self.reliability if _is_off(b)),
            *(s for i, n in enumerate(self.numbers) for s in _number_problems(i, n, self.steps)),
            *self._together_problems(),
            *self._recorded_problems(),
        )

    def lines(self) -> list[str]:
        """The report as lines of plain text: likelihoods, tables, problems."""
        lines = [
            f"{self.steps:,} steps in {self.episodes:,} episodes, each held against a model of "
            "other episodes",
            f"log-likelihood a step   {self.log_likelihood:.4f} nats",
            f"  without observations  {self.marginal_log_likelihood:.4f}",
            f"  on its own episodes   {self.in_sample_log_likelihood:.4f}",
            f"noise of an episode's weight  at least x {_exp(self.episode_weight_error):.3g}",
        ]
        if self.reliability:
            error = self.expected_calibration_error
            lines += [f"expected calibration error    {error:.4f}", ""]
            lines.append(f"{'predicted':>10}{'observed':>10}{'±':>9}{'choices':>13}")
            lines += [
                f"{b.predicted:>10.4f}{b.observed:>10.4f}{b.standard_error:>9.4f}{b.choices:>13,}"
                for b in self.reliability
            ]
        if self.numbers:
            header = ("number", "mean", "deviation", "in 50 %", "in 95 %")
            lines += ["", "".join(f"{name:>11}" for name in header)]
            lines += [
                f"{i:>11}{n.mean:>11.3f}{n.deviation:>11.3f}{n.within_50:>11.3f}{n.within_95:>11.3f}"
                for i, n in enumerate(self.numbers)
            ]
        if self.recorded is not None:
            r = self.recorded
            lines += [
                "",
                f"beside what was recorded: {r.mean_difference:.4f} nats apart on average, "
                f"{r.largest_difference:.4f} at most",
                f"mean of estimated / recorded  {r.mean_weight:.4f} ± {r.standard_error:.4f}",
                f"mean of recorded / estimated  {r.behaviour_weight:.4f} ± "
                f"{r.behaviour_standard_error:.4f}",
            ]
        return [*lines, "", *(self.problems or ("No problem is seen.",))]

    def _likelihood_problems(self) -> list[str]:
        problems = []
        if self.log_likelihood < self.marginal_log_likelihood:
            problems.append(
                f"On episodes that it was not fitted to, the estimate ({self.log_likelihood:.3f} "
                "nats a step) is worse than one that looks at no observation "
                f"({self.marginal_log_likelihood:.3f}): there is too little data for it. Use a "
                "coarser observation, a smaller model, or more episodes."
            )
        error = self.episode_weight_error
        if _exp(error) > _EPISODE_FACTOR:
            problems.append(
                f"Noise of the estimate alone multiplies or divides the weight of an episode "
                f"({self.steps / self.episodes:.3g} steps) by about {_exp(error):.2g}: use a "
                "smaller model, more episodes, or weights of single steps."
            )
        return problems

    def _together_problems(self) -> list[str]:
        t = self.together
        if t is None or abs(t.standard_errors) < _STANDARD_ERRORS + 1:
            return []
        if abs(t.correlation) < _CORRELATION:
            return []
        return [
            f"Numbers {t.first} and {t.second} of an action go together (correlation "
            f"{t.correlation:.2f} beyond what the observation explains), and the estimate takes "
            "them as independent: weights of their combinations are off."
        ]

    def _recorded_problems(self) -> list[str]:
        r, problems = self.recorded, []
        if r is None:
            return problems
        if abs(r.mean_weight - 1) > max(_STANDARD_ERRORS * r.standard_error, _WEIGHT):
            problems.append(
                f"The mean weight of the estimate against what was recorded is {r.mean_weight:.3g} "
                f"± {r.standard_error:.2g} where 1 is expected: the recorded log-probabilities are "
                "not those of the logged actions, or the estimate is far off."
            )
        length = self.steps / self.episodes
        away = abs(r.behaviour_weight - 1)
        if away > max(_STANDARD_ERRORS * r.behaviour_standard_error, _EPISODE_WEIGHT / length):
            problems.append(
                f"Under the behaviour itself a step's weight is {r.behaviour_weight:.3g} ± "
                f"{r.behaviour_standard_error:.2g} on average where 1 is right, and the weight of "
                f"an episode multiplies that ({length:.3g} steps): use self-normalised estimators."
            )
        return problems


def _is_off(b: Bin) -> bool:
    if abs(b.observed - b.predicted) <= _STANDARD_ERRORS * b.standard_error:
        return False
    return not b.predicted / _FACTOR <= b.observed <= b.predicted * _FACTOR


def _bin_problem(b: Bin) -> str:
    factor = b.observed / b.predicted if b.predicted > 0 else math.inf
    return (
        f"What is predicted with {b.predicted:.2g} happens {b.observed:.2g} of the time "
        f"({b.choices:,} choices): weights of such actions come out {factor:.3g} times what they "
        "should be."
    )


def _number_problems(i: int, n: Number, steps: int) -> list[str]:
    problems = []
    if n.at_bounds > _AT_BOUNDS:
        low, high = n.bounds
        problems.append(
            f"{100 * n.at_bounds:.2g} % of number {i} are exactly {low:.3g} or {high:.3g}, as if "
            "they had been clipped: a density does not say how likely that is, and weights of "
            "those steps are wrong."
        )
    error = 1 / math.sqrt(steps)
    if abs(n.mean) > max(_DEVIATIONS, _STANDARD_ERRORS * error):
        problems.append(
            f"Number {i} lies {n.mean:.2g} deviations from where it is predicted: its weights "
            "lean to one side."
        )
    if abs(n.deviation - 1) > max(_DEVIATIONS, _STANDARD_ERRORS * error / math.sqrt(2)):
        problems.append(
            f"Number {i} spreads {n.deviation:.2g} times as far as predicted: weights of common "
            f"actions come out {1 / n.deviation:.2g} times what they should be, of rare ones more."
        )
    for share, within in ((0.5, n.within_50), (0.95, n.within_95)):
        tolerance = max(_SHARE, _STANDARD_ERRORS * error * math.sqrt(share * (1 - share)))
        if abs(within - share) > tolerance:
            problems.append(
                f"{100 * within:.3g} % of number {i} lie where {100 * share:.2g} % are predicted: "
                "it is not normal with one deviation everywhere."
            )
    return problems


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))
