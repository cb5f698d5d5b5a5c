"""A reading in sentences: the state of the weights, and the next thing to do."""

import math
from collections.abc import Sequence

from reweigh.core.diagnostics.reading import HealthReading, WeightReading
from reweigh.core.weights.psis import LEAST_COUNT

_STANDARD_ERRORS = 4.0
_MEAN_TOLERANCE = 0.01
_EVEN_ESS_SHARE = 0.7
_LOW_ESS_SHARE = 0.1
_FEW = 50
_LARGE_SHARE = 0.5
_SPENT = 0.1


def advice(
    raw: HealthReading,
    *,
    bounded: HealthReading | None = None,
    unit: str = "weights",
    group: str = "policy",
    names: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Facts and advice about a set of weights, one short sentence each, with its numbers.

    Args:
        raw: Of the weights before any bound: only these tell how far apart the policies are.
        bounded: Of the weights that are used, after bounding or smoothing.
        unit: What a weight is of, in the plural: "steps", "episodes".
        group: What a group is: "policy", "prompt".
        names: Of the groups; without them, their numbers.

    Returns:
        Sentences, at least one: the effective sample size. Facts that ask for no action are left
        out.

    Raises:
        ValueError: Another number of names than of groups.
    """
    names = [str(i) for i in range(len(raw.groups))] if names is None else names
    if len(names) != len(raw.groups):
        raise ValueError(f"names has {len(names)} names for {len(raw.groups)} groups")
    total = raw.total
    if total.sample_size == 0:
        return (*_undefined(total, unit), f"There are no {unit} to speak of.")
    return (
        *_undefined(total, unit),
        *_mean(total),
        _effective_sample_size(total, unit),
        *_tail(total, unit),
        *_largest(total),
        *_gradient(total),
        *_spent_groups(raw, unit, group, names),
        *([] if bounded is None else _bound(total, bounded.total)),
    )


def doubts(total: WeightReading, *, unit: str) -> tuple[str, ...]:
    """Reasons not to believe a mean with such weights, one short sentence each.

    Unlike `advice`, which asks how well the data serves, it asks whether value and standard error
    can be believed: a small share of very many episodes may be enough.

    Args:
        total: Of the weights, before any bound.
        unit: What a weight is of, in the plural: "steps", "episodes".
    """
    if total.sample_size == 0:
        return (f"There are no {unit} to speak of.",)
    few = total.effective_sample_size < _FEW and total.ess_share < _EVEN_ESS_SHARE
    # Weights that take few different values, as where states are few, have no tail to fit.
    judged = total.sample_size >= LEAST_COUNT and not few and total.ess_share >= _LOW_ESS_SHARE
    return (
        *_undefined(total, unit),
        *_mean(total),
        *([_effective_sample_size(total, unit)] if few else []),
        *([] if judged and total.k_hat == math.inf else _tail(total, unit)),
    )


def _undefined(total: WeightReading, unit: str) -> list[str]:
    if total.undefined == 0:
        return []
    return [
        f"{total.undefined} of {total.sample_size + total.undefined} {unit} have a weight that is "
        "NaN or infinite and are not counted here: their log-probabilities are missing or "
        "overflowed; compute them again or mask them."
    ]


def _mean(total: WeightReading) -> list[str]:
    """A sentence if the mean weight is too far from 1 for chance."""
    difference = abs(total.mean - 1)
    # The standard error of so few weights is no guide to their mean.
    if total.sample_size < LEAST_COUNT:
        return []
    if difference <= max(_STANDARD_ERRORS * total.standard_error, _MEAN_TOLERANCE):
        return []
    # Uneven weights average less than 1 until a rare large one is drawn: that is no error.
    if total.mean < 1 and total.ess_share < _EVEN_ESS_SHARE:
        return []
    return [
        f"The mean weight is {total.mean:.3g} ± {total.standard_error:.2g} (standard error) where "
        "1 is expected: the two log-probabilities do not belong to the sampled actions. Compare "
        "their temperature, top-k and top-p support, and precision (bfloat16 is too coarse)."
    ]


def _effective_sample_size(total: WeightReading, unit: str) -> str:
    sentence = (
        f"The effective sample size is {total.effective_sample_size:.3g} of {total.sample_size} "
        f"{unit} ({_percent(total.ess_share)})"
    )
    if total.ess_share >= _LOW_ESS_SHARE:
        return f"{sentence}."
    return (
        f"{sentence}: a weighted mean is about as noisy as that of so few from the target itself. "
        "Bound the weights, shorten their scope, or collect nearer the target."
    )


def _tail(total: WeightReading, unit: str) -> list[str]:
    if total.k_hat <= total.k_hat_threshold:
        return []
    if total.k_hat == math.inf:
        why = "too few of them have a weight of any size"
        if total.sample_size < LEAST_COUNT:
            why = f"it takes {LEAST_COUNT}"
        return [
            f"The tail of {total.sample_size} {unit} cannot be judged: {why}. Do not trust a "
            "standard error."
        ]
    return [
        f"k-hat is {total.k_hat:.2f}, above {total.k_hat_threshold:.2f}, the limit for "
        f"{total.sample_size} {unit}: weighted means and their standard errors are unreliable. "
        "Truncate or smooth the weights, or take fewer passes over old data."
    ]


def _largest(total: WeightReading) -> list[str]:
    share = total.top_shares.get(1, 0.0)
    if total.sample_size == 1 or not share > _LARGE_SHARE:
        return []
    return [f"The largest weight, {total.maximum:.3g}, carries {_percent(share)} of the total."]


def _gradient(total: WeightReading) -> list[str]:
    of_gradient, of_weights = total.gradient_effective_sample_size, total.effective_sample_size
    if not of_gradient < of_weights / 2:
        return []
    return [
        f"The gradient's effective sample size is {of_gradient:.3g} where that of the weights is "
        f"{of_weights:.3g}: a few terms are large. Subtract a baseline, or standardise the "
        "advantages."
    ]


def _spent_groups(raw: HealthReading, unit: str, group: str, names: Sequence[str]) -> list[str]:
    """A sentence about the groups that carry little weight for their size."""
    number = sum(reading.sample_size for reading in raw.groups)
    spent = [
        i
        for i, (reading, share) in enumerate(zip(raw.groups, raw.weight_shares, strict=True))
        if share < _SPENT * reading.sample_size / number
    ]
    if len(raw.groups) == 1 or not spent:
        return []
    gave = sum(raw.groups[i].sample_size for i in spent) / number
    carry = sum(raw.weight_shares[i] for i in spent)
    listed = _listed([names[i] for i in spent])
    many = len(spent) > 1
    subject = f"{_plural(group) if many else group} {listed}"
    return [
        f"{subject[0].upper()}{subject[1:]} gave {_percent(gave)} of the {unit} and "
        f"{'carry' if many else 'carries'} {_percent(carry)} of the weight: drop "
        f"{'them' if many else 'it'}, or collect nearer the target."
    ]


def _bound(raw: WeightReading, bounded: WeightReading) -> list[str]:
    kept = bounded.mean / raw.mean if raw.mean > 0 else math.nan
    sentence = (
        f"Bounding took the effective sample size from {_percent(raw.ess_share)} to "
        f"{_percent(bounded.ess_share)} and the mean weight from {raw.mean:.3g} to "
        f"{bounded.mean:.3g}"
    )
    return [f"{sentence}: what it cut is bias." if kept < 1 - _MEAN_TOLERANCE else f"{sentence}."]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plural(word: str) -> str:
    return word[:-1] + "ies" if word.endswith("y") else word + "s"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
