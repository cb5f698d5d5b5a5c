"""Is it better? The paired difference to the behaviour, its bound, and the test that uses it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reweigh.core.diagnostics import WeightReading, doubts, read, weight_health
from reweigh.core.weights import k_hat_threshold
from reweigh.evaluation.estimates import Estimate
from reweigh.evaluation.estimating import Estimator, estimate
from reweigh.evaluation.importance import behaviour, weighted_per_decision
from reweigh.evaluation.intervals import student_t
from reweigh.evaluation.sample import Sample
from reweigh.evaluation.terms import Terms
from reweigh.learning.division import Part
from reweigh.learning.region import samples

_STANDARD_ERRORS = 3.0


class Gain(NamedTuple):
    """What a policy is worth more than the behaviour, as far as some episodes show it."""

    estimate: Estimate
    """The difference, of which chance in the episodes that both share is no part. Its lower end
    makes room for `unseen`."""
    weights: WeightReading
    """Of the episodes' weights."""
    unseen: float = 0.0
    """What may be due to what has never happened."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A policy beside the behaviour, on the same episodes."""

    level: float
    """Of each bound by itself: the intervals are two-sided at `2 level - 1`."""
    behaviour: Estimate
    """What sampled the log."""
    learnt: Estimate
    """The policy."""
    gain: Gain


def improvement(sample: Sample) -> Terms:
    """What the policy gains on the behaviour: `Σ_t γ^t Σ_i w_it r_it / Σ_i w_it - (1/N) Σ_i G_i`.

    The self-normalised per-decision estimate less the mean logged return, of the same episodes.

    Returns:
        Terms. With equal policies the estimate is 0, and so is its standard error.
    """
    terms = weighted_per_decision(sample)
    return replace(terms, plain=terms.plain - sample.returns)


def gain(part: Part, policy: nn.Module, *, discount: float, level: float) -> Gain:
    """What a policy gains on the behaviour.

    Args:
        part: The episodes. They are gone through twice if there are several batches.
        policy: Learnt from others.
        discount: γ.
        level: Of each bound by itself.

    Raises:
        ValueError: The policy gives NaN.
    """
    found = _ask({"gain": improvement}, part, policy, discount, level)
    return found.gain(level)


def compare(part: Part, policy: nn.Module, *, discount: float, level: float) -> Comparison:
    """A policy beside the behaviour: `gain`, and what both are worth.

    Args:
        part: As there.
        policy: As there.
        discount: As there.
        level: As there.

    Raises:
        ValueError: As there.
    """
    asked = {"behaviour": behaviour, "learnt": weighted_per_decision, "gain": improvement}
    found = _ask(asked, part, policy, discount, level)
    return Comparison(
        level=level,
        behaviour=found.estimates["behaviour"],
        learnt=found.estimates["learnt"],
        gain=found.gain(level),
    )


def unseen(episodes: int, returns: Tensor, *, level: float) -> float:
    """How much a gain may be due to what has never happened: `ln(1 / (1 - level)) (b - a) / n`.

    What did not happen in n episodes has a probability of at most `ln(1 / (1 - level)) / n` at the
    confidence level (3 / n at 95 %: Hanley and Lippman-Hand 1983), and would have changed the mean
    return by up to that share of the range [a, b] of the returns. No standard error knows of it.
    """
    return -math.log(1 - level) / episodes * float(returns.max() - returns.min())


class _Answers(NamedTuple):
    estimates: dict[str, Estimate]
    weights: WeightReading
    returns: Tensor

    def gain(self, level: float) -> Gain:
        found = self.estimates["gain"]
        allowed = unseen(found.episodes, self.returns, level=level)
        return Gain(replace(found, low=found.low - allowed), self.weights, allowed)


def _ask(
    asked: Mapping[str, Estimator], part: Part, policy: nn.Module, discount: float, level: float
) -> _Answers:
    """What estimators say, and the weights that they rest on."""
    weights: list[Tensor] = []
    returns: list[Tensor] = []

    def parts() -> Iterator[Sample]:
        weights.clear()
        returns.clear()
        for sample in samples(part, policy, discount=discount):
            weights.append(sample.log_trajectory)
            returns.append(sample.returns)
            yield sample

    found = estimate(parts, asked, interval=student_t, level=2 * level - 1)
    for refusal in found.refusals.values():
        raise ValueError(refusal)
    log_weights = torch.cat(weights)
    reading = read(weight_health(log_weights)).total
    # Exact where all weights are near 1, and a small share of them may be missing.
    error = float(log_weights.expm1().std()) / len(log_weights) ** 0.5
    reading = replace(reading, standard_error=error)
    return _Answers(found.estimates, reading, torch.cat(returns))


def weight_doubts(reading: WeightReading) -> tuple[str, ...]:
    """Why not to believe an improvement, a sentence each; none if nothing speaks against it.

    Beside the doubts of any weighted mean: weights that sum to less than the number of episodes. A
    self-normalised estimate makes up for what is missing by what is there, and so takes a policy
    for good that turns, where things go badly, to actions that the log does not hold.
    """
    found = doubts(reading, unit="episodes")
    missing = 1 - reading.mean
    if missing > _STANDARD_ERRORS * reading.standard_error and not found:
        found = (
            f"The mean weight is {reading.mean:.3g} ± {reading.standard_error:.2g} (standard "
            "error) where 1 is expected: the policy takes actions that the log does not hold.",
        )
    return found


def predicted_bound(found: Gain, episodes: int) -> float:
    """The lower bound of a gain that so many other episodes would give, if they are alike.

    Candidates are chosen by this (Thomas et al. 2015, section 6). The standard error shrinks as the
    root of the number of episodes, and what is `unseen` with the number itself.
    """
    estimate, share = found.estimate, found.estimate.episodes / episodes
    margin = estimate.value - found.unseen - estimate.low
    return estimate.value - margin * share**0.5 - found.unseen * share


def as_if(reading: WeightReading, episodes: int) -> WeightReading:
    """What would be read of the same weights if there were so many of them."""
    share = episodes / reading.sample_size
    return replace(
        reading,
        sample_size=episodes,
        effective_sample_size=reading.effective_sample_size * share,
        k_hat_threshold=k_hat_threshold(episodes),
    )


class Verdict(NamedTuple):
    """What the test says."""

    shown: bool
    """Whether an improvement was shown."""
    words: str
    """One sentence."""


def judge(compared: Comparison, *, upper_bound: bool = False) -> Verdict:
    """The safe-improvement test, of episodes that had no say in what was learnt.

    After Thomas et al. 2015 (HCPI), section 5, with the difference of the two values estimated on
    the same episodes. If the policy is no better, and its actions are all in the log, the chance to
    be told otherwise is `1 - level`, as the number of episodes grows.

    Args:
        compared: The policy that was chosen beside the behaviour.
        upper_bound: Ask for more: the lower bound of the policy's value above the upper bound of
            the behaviour's, for which neither estimate need know of the other.
    """
    level = f"{100 * compared.level:g} %"
    found = compared.gain.estimate
    words = (
        f"{found.value:+.4g} on the behaviour's {compared.behaviour.value:.4g}, and at least "
        f"{found.low:+.4g}, on {found.episodes} episodes that were kept for the test"
    )
    if doubts := weight_doubts(compared.gain.weights):
        return Verdict(False, f"no improvement shown at {level}: {words}, but {' '.join(doubts)}")
    if not found.low > 0:
        return Verdict(False, f"no improvement shown at {level}: {words}")
    if upper_bound and not compared.learnt.low > compared.behaviour.high:
        return Verdict(
            False,
            f"no improvement shown at {level}: {words}, but the policy's lower bound, "
            f"{compared.learnt.low:.4g}, is not above the behaviour's upper bound, "
            f"{compared.behaviour.high:.4g}",
        )
    return Verdict(True, f"improvement shown at {level}: {words}")
