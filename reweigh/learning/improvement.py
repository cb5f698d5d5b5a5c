"""Is it better? The paired difference to the behaviour, its bound, and the test that uses it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reweigh.core.diagnostics import WeightReading, doubts, read, weight_health
from reweigh.core.sample import Sample
from reweigh.core.terms import Terms
from reweigh.core.weights import k_hat_threshold
from reweigh.evaluation.estimates import Estimate
from reweigh.evaluation.estimating import estimate
from reweigh.evaluation.intervals import student_t
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.methods import Estimator
from reweigh.learning.critic import ValueFunction
from reweigh.learning.division import Part
from reweigh.learning.learner import logged, values_of
from reweigh.recipes.values import behaviour, weighted_doubly_robust

_STANDARD_ERRORS = 3.0
_MARGIN = 1.5


class Gain(NamedTuple):
    """What a policy is worth more than the behaviour, as far as some episodes show it."""

    estimate: Estimate
    """The difference, of which chance in the episodes that both share is no part."""
    weights: WeightReading
    """Of the episodes' weights."""
    returns: float = 0.0
    """The range of the logged returns, `b - a`."""


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


def improvement(sample: Sample, values: Tensor) -> Terms:
    """What the policy gains on the behaviour: `weighted_doubly_robust` less `(1/N) Σ_i G_i`.

    Consistent whatever the values are, if they come from other episodes; the better they are, the
    smaller is its error. Chance in the episodes, which both estimates share, is in no difference.

    Args:
        sample: The episodes.
        values: `[S]`, of their states; 0 for the self-normalised per-decision estimate.

    Returns:
        Terms. With equal policies the estimate is 0, and so is its standard error.
    """
    terms = weighted_doubly_robust.terms(sample, values, values)
    return replace(terms, plain=terms.plain - sample.returns)


def gain(
    part: Part, policy: nn.Module, critic: ValueFunction | None, *, discount: float, level: float
) -> Gain:
    """What a policy gains on the behaviour.

    Args:
        part: The episodes. They are gone through twice if there are several batches.
        policy: Learnt from others.
        critic: A value function, learnt from others too.
        discount: γ.
        level: Of each bound by itself.

    Raises:
        ValueError: The policy gives NaN.
    """
    return _ask({"gain": _gain(critic)}, part, policy, discount, level).gain


def compare(
    part: Part, policy: nn.Module, critic: ValueFunction | None, *, discount: float, level: float
) -> Comparison:
    """A policy beside the behaviour: `gain`, and what both are worth.

    Args:
        part: As there.
        policy: As there.
        critic: As there.
        discount: As there.
        level: As there.

    Raises:
        ValueError: As there.
    """

    def learnt(log: Logged) -> Terms:
        values = values_of(log.batch, critic)
        return weighted_doubly_robust.terms(log.sample, values, values)

    asked: dict[str, Estimator] = {
        "behaviour": lambda log: behaviour.terms(log.sample),
        "learnt": learnt,
        "gain": _gain(critic),
    }
    answers = _ask(asked, part, policy, discount, level)
    return Comparison(
        level=level,
        behaviour=answers.estimates["behaviour"],
        learnt=answers.estimates["learnt"],
        gain=answers.gain,
    )


def _gain(critic: ValueFunction | None) -> Estimator:
    """`improvement` of logged episodes, with a value function's values."""
    return lambda log: improvement(log.sample, values_of(log.batch, critic))


class _Answers(NamedTuple):
    estimates: dict[str, Estimate]
    weights: WeightReading
    returns: float

    @property
    def gain(self) -> Gain:
        return Gain(self.estimates["gain"], self.weights, self.returns)


def _ask(
    asked: Mapping[str, Estimator], part: Part, policy: nn.Module, discount: float, level: float
) -> _Answers:
    """What estimators say, and the weights that they rest on."""
    weights: list[Tensor] = []
    returns: list[tuple[float, float]] = []

    def parts() -> Iterator[Logged]:
        weights.clear()
        returns.clear()
        for log in logged(part, policy, discount=discount):
            weights.append(log.sample.log_trajectory)
            returns.append((float(log.sample.returns.min()), float(log.sample.returns.max())))
            yield log

    answers = estimate(parts, asked, interval=student_t, level=2 * level - 1)
    for refusal in answers.refusals.values():
        raise ValueError(refusal)
    log_weights = torch.cat(weights)
    reading = read(weight_health(log_weights)).total
    # Exact where all weights are near 1, and a small share of them may be missing.
    error = float(log_weights.expm1().std()) / len(log_weights) ** 0.5
    reading = replace(reading, standard_error=error)
    lowest, highest = zip(*returns, strict=True)
    return _Answers(answers.estimates, reading, max(highest) - min(lowest))


def weight_doubts(reading: WeightReading) -> tuple[str, ...]:
    """Why not to believe an improvement, a sentence each; none if nothing speaks against it.

    Beside the doubts of any weighted mean: weights that sum to less than the number of episodes. A
    self-normalised estimate makes up for what is missing by what is there, and so takes a policy
    for good that turns, where things go badly, to actions that the log does not hold.
    """
    if 1 - reading.mean > _STANDARD_ERRORS * reading.standard_error:
        return (
            f"The mean weight is {reading.mean:.3g} ± {reading.standard_error:.2g} (standard "
            "error) where 1 is expected: the policy takes actions that the log does not hold.",
        )
    return doubts(reading, unit="episodes")


def expected_doubts(reading: WeightReading, episodes: int) -> tuple[str, ...]:
    """Why weights like these might not be believed on so many other episodes, as `weight_doubts`.

    With a margin for what chance makes of them there: as if there were a third fewer. Without it
    learning, which goes as far as it is let, would end where every other test refuses it.
    """
    return weight_doubts(as_if(reading, round(episodes / _MARGIN)))


def least(gain: Gain, episodes: int, *, level: float) -> float:
    """Below this a gain may be due to what has never happened: `ln(1 / (1 - level)) (b - a) / n`.

    What did not happen in n episodes has a probability of up to `ln(1 / (1 - level)) / n`, at that
    confidence (3 / n at 95 %: Hanley and Lippman-Hand 1983), and might have changed the mean return
    by that share of the range of the returns. No standard error knows of it: a policy that takes an
    action less often that is taken once in 10,000 steps gains a little on every log without one.
    """
    return -math.log(1 - level) * gain.returns / episodes


def predicted_bound(estimate: Estimate, episodes: int) -> float:
    """The lower bound of a gain that so many other episodes would give, if they are alike.

    Candidates are chosen by this (Thomas et al. 2015, section 6). The margin shrinks as the root of
    the number of episodes.
    """
    return estimate.value - (estimate.value - estimate.low) * (estimate.episodes / episodes) ** 0.5


def as_if(reading: WeightReading, episodes: int) -> WeightReading:
    """What would be read of the same weights if there were so many of them."""
    share = episodes / reading.sample_size
    return replace(
        reading,
        sample_size=episodes,
        effective_sample_size=reading.effective_sample_size * share,
        k_hat_threshold=k_hat_threshold(episodes),
    )


def within_a_sentence(sentence: str) -> str:
    """A sentence as it reads after a comma: its first letter small, its full stop gone."""
    return (sentence[0].lower() + sentence[1:]).removesuffix(".")


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
    difference = compared.gain.estimate
    words = (
        f"{difference.value:+.4g} on the behaviour's {compared.behaviour.value:.4g}, and at least "
        f"{difference.low:+.4g}, on {difference.episodes} episodes that were kept for the test"
    )
    if doubts := weight_doubts(compared.gain.weights):
        said = within_a_sentence(" ".join(doubts))
        return Verdict(False, f"no improvement shown at {level}: {words}, but {said}")
    if not difference.low > 0:
        return Verdict(False, f"no improvement shown at {level}: {words}")
    enough = least(compared.gain, difference.episodes, level=compared.level)
    if not difference.value > enough:
        return Verdict(
            False,
            f"no improvement shown at {level}: {words}, but so many episodes show none below "
            f"{enough:.2g}, which what has not happened in any of them may account for",
        )
    if upper_bound and not compared.learnt.low > compared.behaviour.high:
        return Verdict(
            False,
            f"no improvement shown at {level}: {words}, but the policy's lower bound, "
            f"{compared.learnt.low:.4g}, is not above the behaviour's upper bound, "
            f"{compared.behaviour.high:.4g}",
        )
    return Verdict(True, f"improvement shown at {level}: {words}")
