"""The charts of an evaluation: each function paints one on the axes it is given."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reweigh.evaluation.estimates import Estimate, Evaluation
from reweigh.report.evaluation_wording import BEHAVIOUR, first_look, in_order
from reweigh.report.svg import ACCENT, CONTRAST, INK, MUTED
from reweigh.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = 0.4
_STEEP = 20
_LEAST_ESS = 0.8


def estimates(axes: "Axes", evaluation: Evaluation, *, names_beside: bool) -> None:
    """Paints all estimates and their intervals below each other, and the behaviour's value.

    Those that should not be believed are pale, and end in an arrow where they leave the picture.

    Args:
        axes: Where.
        evaluation: The estimates.
        names_beside: Whether there is room for the names at the left; else each is above its line.
    """
    shown, chosen = in_order(evaluation), first_look(evaluation)
    limits = extent(shown)
    axes.set_xlim(*limits)
    axes.set_ylim(len(shown) - 0.5, -0.5 if names_beside else -0.8)
    behaviour = evaluation.estimates.get(BEHAVIOUR)
    if behaviour is not None:
        _reference(axes, behaviour)
    for place, estimate in enumerate(shown):
        _interval(axes, place, estimate, limits, CONTRAST if estimate is behaviour else ACCENT)
    (_names_beside if names_beside else _names_above)(axes, shown, chosen)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.locator_params("x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
    axes.set_xlabel("value")


def extent(shown: Sequence[Estimate]) -> tuple[float, float]:
    """The values from which to which estimates are drawn.

    Those that can be believed are shown whole. Others may widen the picture to three times theirs.
    """
    within = [e for e in shown if e.believable]
    if all(e.method == BEHAVIOUR for e in within):  # else nothing of the policy would be seen
        errors = [e.standard_error for e in shown if e.method != BEHAVIOUR]
        least = min((x for x in errors if math.isfinite(x)), default=math.nan)
        within += [e for e in shown if not e.believable and e.standard_error <= _STEEP * least]
    ends = [x for e in within or shown for x in (e.value, e.low, e.high) if math.isfinite(x)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    span = high - low or max(abs(high), 1.0)
    others = [x for e in shown for x in (e.value, e.low, e.high) if not math.isnan(x)]
    low = max(min([low, *others]), low - span)
    high = min(max([high, *others]), high + span)
    margin = 0.04 * (high - low or span)
    return low - margin, high + margin


def effective_sample_size(axes: "Axes", evaluation: Evaluation) -> None:
    """Paints the effective sample size over time in the episode, by its log if it falls much."""
    sizes = np.array(evaluation.ess_by_time)
    steps = np.arange(len(sizes))
    if sizes.min() < sizes.max() / _STEEP:
        axes.set_yscale("log")
        sizes = np.maximum(sizes, _LEAST_ESS)
        axes.set_ylim(_LEAST_ESS, 1.5 * sizes.max())
        axes.minorticks_off()
    else:
        axes.fill_between(steps, sizes, color=ACCENT, alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1.05 * sizes.max())
    axes.plot(steps, sizes, color=ACCENT, marker="o" if len(sizes) == 1 else "")
    axes.yaxis.set_major_formatter(lambda size, _: number(size))
    axes.locator_params("x", nbins=5, integer=True)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlabel("step of the episode")


def _reference(axes: "Axes", behaviour: Estimate) -> None:
    if math.isfinite(behaviour.value):
        axes.axvline(behaviour.value, color=CONTRAST, linewidth=1, linestyle="--", zorder=1)
    if math.isfinite(behaviour.low) and math.isfinite(behaviour.high):
        axes.axvspan(
            behaviour.low, behaviour.high, color=CONTRAST, alpha=0.1, linewidth=0, zorder=0
        )


def _interval(
    axes: "Axes", place: int, estimate: Estimate, limits: tuple[float, float], colour: str
) -> None:
    """Paints an interval with its value; arrows point to what lies beyond the limits."""
    style = {"color": colour, "alpha": 1.0 if estimate.believable else _PALE}
    left, right = limits
    ends = [x for x in (estimate.low, estimate.value, estimate.high) if not math.isnan(x)]
    if not ends:
        return
    low, high = (min(max(x, left), right) for x in (min(ends), max(ends)))
    axes.plot([low, high], [place, place], **style, linewidth=2.4)
    if left <= estimate.value <= right:
        axes.plot(estimate.value, place, "o", **style, markersize=6.5, markeredgewidth=0)
    for beyond, edge, arrow in (
        (min(ends) < left, left, "<"),
        (max(ends) > right, right, ">"),
    ):
        if beyond:
            axes.plot(edge, place, arrow, **style, markersize=6, markeredgewidth=0, clip_on=False)


def _names_beside(axes: "Axes", shown: Sequence[Estimate], chosen: Estimate | None) -> None:
    axes.set_yticks(range(len(shown)), [e.method for e in shown])
    for label, estimate in zip(axes.get_yticklabels(), shown, strict=True):
        label.set(**_lettering(estimate, chosen))


def _names_above(axes: "Axes", shown: Sequence[Estimate], chosen: Estimate | None) -> None:
    axes.set_yticks([])
    for place, estimate in enumerate(shown):
        axes.annotate(
            estimate.method,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(2, 7),
            textcoords="offset points",
            **_lettering(estimate, chosen),
        )


def _lettering(estimate: Estimate, chosen: Estimate | None) -> dict[str, Any]:
    weight = "bold" if estimate is chosen else "normal"
    return {"color": INK if estimate.believable else MUTED, "fontweight": weight}


def _tick(value: float) -> str:
    return number(value) if abs(value) < 1e7 else f"{value:g}"
