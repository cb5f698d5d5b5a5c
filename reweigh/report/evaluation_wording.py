"""An evaluation in words: its figures, which estimate to look at first, and what it shows."""

import math
from typing import Literal, NamedTuple

from reweigh import recipes
from reweigh.data.schema import MISSING, RECORDED
from reweigh.evaluation.estimates import Estimate, Evaluation
from reweigh.report.wording import (
    counted,
    decimals_for,
    error,
    figure,
    percent,
    tail,
    unfinished_note,
)

BEHAVIOUR = recipes.behaviour.name
_ROUNDING = 1e-9
FROM_BELOW = recipes.truncated_importance_sampling.name
SELF_NORMALISED = {
    recipe.name
    for recipe in (
        recipes.weighted_importance_sampling,
        recipes.weighted_per_decision,
        recipes.pareto_smoothed,
        recipes.weighted_doubly_robust,
    )
}
INTERVALS = {
    "normal": "by the normal approximation",
    "student_t": "by Student's t",
    "bootstrap": "by the bootstrap",
    "bias_corrected_bootstrap": "by the bias-corrected bootstrap",
    "hoeffding": "by Hoeffding's inequality",
    "empirical_bernstein": "by the empirical Bernstein inequality",
}
"""How intervals are made, in words, by their functions' names."""
DOUBTED = "An estimate with doubts should not be believed"
"""Heads the doubts."""

Standing = Literal["above", "below", "overlaps"]


def title(evaluation: Evaluation) -> str:
    """What was evaluated, as a heading."""
    where = "" if evaluation.environment is None else f" in {evaluation.environment}"
    return f"What the policy is worth{where}"


def basis(evaluation: Evaluation) -> str:
    """What the estimates are from: episodes, discount, intervals, and what was left out."""
    discount = (
        "without discount"
        if evaluation.discount == 1
        else f"discounted by {evaluation.discount:g} a step"
    )
    made = INTERVALS.get(evaluation.interval, f"by {evaluation.interval}")
    left_out = evaluation.unfinished
    of_episodes = evaluation.episodes + left_out.episodes
    note = f" {unfinished_note(*left_out, of_episodes)}." if left_out.episodes else ""
    return (
        f"From {counted(evaluation.episodes, 'logged episode')} "
        f"({counted(evaluation.steps, 'step')}), {discount}; {percent(evaluation.level)} intervals "
        f"{made}.{note}"
    )


def source_of_weights(evaluation: Evaluation) -> str:
    """Where the behaviour's log-probabilities come from: recorded, estimated, or missing."""
    if not evaluation.weight_histogram:
        return "The behaviour's log-probabilities are missing: nothing can be weighed."
    if not _estimated(evaluation):
        return "The behaviour's log-probabilities were recorded when it acted."
    return (
        f"The behaviour's log-probabilities were not recorded ({evaluation.behaviour}): weights are"
        " only as good as that estimate."
    )


def in_order(evaluation: Evaluation) -> list[Estimate]:
    """All estimates, the behaviour's own value first."""
    return sorted(evaluation.estimates.values(), key=lambda e: e.method != BEHAVIOUR)


def of_the_policy(evaluation: Evaluation) -> list[Estimate]:
    """The estimates of the policy: all but the behaviour's own value."""
    return [e for e in evaluation.estimates.values() if e.method != BEHAVIOUR]


def first_look(evaluation: Evaluation) -> Estimate | None:
    """The estimate to look at first, or None if none can be believed."""
    return min(_candidates(evaluation), key=lambda e: e.standard_error, default=None)


def standing(evaluation: Evaluation, estimate: Estimate) -> Standing | None:
    """Where an interval lies beside that of the behaviour's value; None if one is missing."""
    behaviour = evaluation.estimates.get(BEHAVIOUR)
    if behaviour is None or any(
        math.isnan(x) for e in (behaviour, estimate) for x in (e.low, e.high)
    ):
        return None
    rounding = _ROUNDING * max(
        abs(behaviour.high), abs(behaviour.low), abs(estimate.high), abs(estimate.low)
    )
    if estimate.low - behaviour.high > rounding:
        return "above"
    return "below" if behaviour.low - estimate.high > rounding else "overlaps"


def verdict(evaluation: Evaluation) -> str:
    """Which estimate to look at first, why, and how it compares with the behaviour's value."""
    chosen, d = first_look(evaluation), decimals(evaluation)
    if chosen is None:
        return _nothing_to_believe(evaluation)
    candidates = _candidates(evaluation)
    kind, aside = "estimate", ""
    if chosen.method in SELF_NORMALISED:
        kind, aside = "self-normalised estimate", ", which a few heavy weights disturb least"
    reason = f"it is the only believable {kind}{aside}"
    if len(candidates) > 1:
        reason = (
            f"of the {len(candidates)} believable {kind}s{aside}{',' if aside else ''} it has the "
            "smallest standard error"
        )
    return f"Look first at {chosen.method}, {with_error(chosen, d)}: {reason}. " + _comparison(
        evaluation, chosen, d
    )


def doubts(evaluation: Evaluation) -> dict[str, int]:
    """Every warning once, with its number, from 1."""
    said = (warning for e in evaluation.estimates.values() for warning in e.warnings)
    return {warning: number for number, warning in enumerate(dict.fromkeys(said), start=1)}


def left_out(evaluation: Evaluation) -> dict[str, list[str]]:
    """Why estimators were left out, each reason once, and which."""
    methods: dict[str, list[str]] = {}
    for method, why in evaluation.left_out.items():
        methods.setdefault(why, []).append(method)
    return methods


def decimals(evaluation: Evaluation) -> int:
    """How many decimals matter, by the standard errors that are looked at."""
    looked_at = (evaluation.estimates.get(BEHAVIOUR), first_look(evaluation))
    errors = [e.standard_error for e in looked_at if e is not None]
    return decimals_for(errors, [e.value for e in evaluation.estimates.values()])


def key(evaluation: Evaluation) -> str:
    """What the columns mean."""
    weighed = [e for e in evaluation.estimates.values() if math.isfinite(e.k_hat_threshold)]
    if not weighed:
        return "SE: standard error."
    of_steps = [e for e in weighed if unit(e) == "steps"]
    steps = f" (of the steps for {', '.join(e.method for e in of_steps)})" if of_steps else ""
    limits = {unit(e): f"{e.k_hat_threshold:.2f}" for e in weighed}
    reliable = next(iter(limits.values()))
    if len(set(limits.values())) > 1:
        reliable = ", ".join(f"{limit} for {of}" for of, limit in limits.items())
    untold = ""
    if any(e.k_hat == math.inf for e in weighed):
        untold = " (none: the largest are alike, or too few)"
    return (
        f"SE: standard error. ESS: effective sample size, and its share of the episodes{steps}. "
        f"k-hat: how heavy the tail of the weights is{untold}; up to {reliable} their mean is "
        "reliable."
    )


class Row(NamedTuple):
    """An estimate's row of a table."""

    name: str
    figures: dict[str, str]
    """By their heads."""
    doubts: list[int]
    """Numbers of the warnings."""
    kind: Literal["behaviour", "doubted", "first", ""]


def heads(evaluation: Evaluation) -> list[str]:
    """The heads of a table of estimates, but the first, over their names."""
    interval = f"{percent(evaluation.level)} interval"
    return ["value", "SE", interval, "ESS", "share", "k-hat", "doubts"]


def rows(evaluation: Evaluation) -> list[Row]:
    """A row for each estimate, the behaviour's own value first."""
    d, numbers, chosen = decimals(evaluation), doubts(evaluation), first_look(evaluation)
    made = []
    for e in in_order(evaluation):
        figures = (
            figure(e.value, d),
            error(e.standard_error, d),
            span(e, d),
            *size(e),
            tail(e.k_hat),
        )
        doubted = sorted(numbers[warning] for warning in e.warnings)
        kind = "behaviour" if e.method == BEHAVIOUR else "doubted" if doubted else ""
        named = dict(zip(heads(evaluation), figures, strict=False))
        made.append(Row(e.method, named, doubted, "first" if e is chosen else kind))
    return made


def with_error(estimate: Estimate, decimals: int) -> str:
    """A value with its standard error, if it has one."""
    value = figure(estimate.value, decimals)
    if math.isnan(estimate.standard_error):
        return value
    return f"{value} ± {error(estimate.standard_error, decimals)}"


def span(estimate: Estimate, decimals: int) -> str:
    """An interval, as in "22.45 to 24.37"."""
    if math.isnan(estimate.low) and math.isnan(estimate.high):
        return "-"
    return f"{figure(estimate.low, decimals)} to {figure(estimate.high, decimals)}"


def size(estimate: Estimate) -> tuple[str, str]:
    """The effective sample size and its share of the weights; - without weights."""
    effective = estimate.effective_sample_size
    if math.isnan(effective):
        return "-", "-"
    text = f"{effective:,.0f}" if effective >= 100 else f"{effective:.3g}"
    return text, f"{effective / estimate.weights:.1%}" if estimate.weights else "-"


def unit(estimate: Estimate) -> str:
    """What has the weights of an estimate: episodes, or steps."""
    return "steps" if estimate.weights > estimate.episodes else "episodes"


def _estimated(evaluation: Evaluation) -> bool:
    return evaluation.behaviour not in (RECORDED, MISSING)


def _candidates(evaluation: Evaluation) -> list[Estimate]:
    """Believable estimates of the best kind: self-normalised, or others, or the one from below."""
    believable = [
        e for e in of_the_policy(evaluation) if e.believable and math.isfinite(e.standard_error)
    ]
    kinds = (
        [e for e in believable if e.method in SELF_NORMALISED],
        [e for e in believable if e.method != FROM_BELOW],
        believable,
    )
    return next((kind for kind in kinds if kind), [])


def _comparison(evaluation: Evaluation, chosen: Estimate, d: int) -> str:
    interval = f"Its {percent(chosen.level)} interval"
    where = standing(evaluation, chosen)
    if where is None:
        return f"{interval} is {span(chosen, d)}."
    interval += f", {span(chosen, d)},"
    beside = f"the behaviour's, {span(evaluation.estimates[BEHAVIOUR], d)}"
    if where == "overlaps":
        return f"{interval} overlaps {beside}: no difference is shown."
    if where == "below" and chosen.method == FROM_BELOW:
        return f"{interval} lies below {beside}, which shows nothing: it is an estimate from below."
    shown = "better" if where == "above" else "worse"
    if _estimated(evaluation):
        shown += ", as far as the estimated log-probabilities are right"
    return f"{interval} lies {where} {beside}: the policy is {shown}."


def _nothing_to_believe(evaluation: Evaluation) -> str:
    behaviour, d = evaluation.estimates.get(BEHAVIOUR), decimals(evaluation)
    beside = (
        "" if behaviour is None else f" The behaviour's own value is {with_error(behaviour, d)}."
    )
    if not of_the_policy(evaluation):
        return f"There is no estimate of the policy.{beside}"
    if not evaluation.weight_histogram:
        return (
            "No estimate of the policy should be believed, since nothing can be weighed: estimate "
            "the behaviour's log-probabilities by `reweigh import LOG NEW_LOG "
            f"--estimate-behaviour`.{beside}"
        )
    return (
        "No estimate of the policy should be believed, for the reasons given. More episodes would "
        f"help, or a policy that is closer to the behaviour.{beside}"
    )
