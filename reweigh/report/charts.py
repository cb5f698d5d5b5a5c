"""The charts of a run: each function paints one on the axes it is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reweigh.report.svg import ACCENT, CONTRAST, MUTED, SURFACE, THIRD
from reweigh.report.wording import number
from reweigh.train.progress import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measure = Callable[[Progress], float | None]
History = Sequence[Progress]


def points(history: History, measure: Measure) -> tuple[list[int], list[float]]:
    """The steps at which something was measured, and its values."""
    measured = [(p.steps, value) for p in history if (value := measure(p)) is not None]
    return [steps for steps, _ in measured], [value for _, value in measured]


def learning_curve(
    axes: "Axes",
    history: History,
    compared: History | None,
    *,
    threshold: float | None,
    legend_columns: int,
) -> None:
    """Paints the return over environment steps, beside that of the run without reuse."""
    if compared is not None:
        _returns(axes, compared, CONTRAST, ", without reuse")
    _returns(axes, history, ACCENT, "" if compared is None else ", with reuse")
    if threshold is not None:
        _limit(axes, threshold)
        axes.annotate(
            f"threshold {number(threshold)}",
            (0, threshold),
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            color=MUTED,
        )
        axes.margins(y=0.1)  # room for those words where the threshold is the highest
    _steps_axis(axes)
    axes.set_ylabel("return")
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        _legend(axes, handles[::-1], labels[::-1], columns=legend_columns)


def mark_reached(axes: "Axes", history: History, steps: int, colour: str, *, height: float) -> None:
    """Marks where the threshold was reached; its steps are written at a height from 0 to 1."""
    values = dict(zip(*points(history, greedy_or_training_return), strict=True))
    if steps in values:
        ring = {"markersize": 7, "markeredgecolor": SURFACE, "zorder": 5}
        axes.plot(steps, values[steps], "o", color=colour, **ring)
    axes.axvline(steps, color=colour, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        f"{steps:,} steps",
        (steps, height),
        xycoords=("data", "axes fraction"),
        xytext=(-5, 0),
        textcoords="offset points",
        ha="right",
        color=colour,
        bbox={"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
        zorder=6,
    )


def greedy_or_training_return(progress: Progress) -> float | None:
    """The check's return, or that of the training episodes where there was no check."""
    checked = progress.evaluation_return
    return progress.training_return if checked is None else checked


def over_steps(axes: "Axes", history: History, measure: Measure) -> None:
    """Paints one measure over environment steps."""
    _curve(axes, points(history, measure), color=ACCENT)
    _steps_axis(axes)


def kl(axes: "Axes", history: History, *, limit: float) -> None:
    """Paints how far each improvement moved the policy, and the limit that ends it."""
    over_steps(axes, history, lambda p: p.kl)
    _limit(axes, limit)
    axes.set_ylim(bottom=0)


def ess(axes: "Axes", history: History, *, least: float) -> None:
    """Paints the effective sample size of each improvement, as a share of the reused steps."""
    over_steps(axes, history, lambda p: p.ess)
    axes.fill_between(*points(history, lambda p: p.ess), color=ACCENT, alpha=0.15, linewidth=0)
    _limit(axes, least)
    _percent(axes)


def ess_by_age(axes: "Axes", progress: Progress) -> None:
    """Paints the effective sample size of each policy's own steps, the newest at the left."""
    edges = np.arange(len(progress.ess_by_age) + 1) - 0.5
    axes.stairs(progress.ess_by_age, edges, fill=True, color=ACCENT, alpha=0.8, linewidth=0)
    _ages_axis(axes)
    _percent(axes)


def mean_weight_by_age(axes: "Axes", progress: Progress) -> None:
    """Paints the mean weight of each policy's own steps, around its expectation 1."""
    ages = range(len(progress.mean_weight_by_age))
    _limit(axes, 1)
    axes.plot(ages, progress.mean_weight_by_age, "o-", color=ACCENT, markersize=3.5, linewidth=1)
    furthest = max(0.1, *(abs(weight - 1) for weight in progress.mean_weight_by_age))
    axes.set_ylim(1 - 1.15 * furthest, 1 + 1.15 * furthest)
    _ages_axis(axes)


def weight_histogram(
    axes: "Axes", counts: Sequence[int], *, ticks: Mapping[int, str], label: str
) -> None:
    """Paints shares of weights by their log10, in equal bins from the first tick to the last."""
    shares = np.array(counts) / max(sum(counts), 1)
    edges = np.linspace(min(ticks), max(ticks), len(counts) + 1)
    axes.stairs(shares, edges, fill=True, color=ACCENT, alpha=0.8, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def epochs(axes: "Axes", history: History) -> None:
    """Paints how many passes each improvement made, and why it ended."""
    for ended_by, meaning, marker, colour in (
        ("epochs", "all passes done", "^", THIRD),
        ("kl", "KL limit", "o", ACCENT),
        ("ess", "ESS limit", "s", CONTRAST),
    ):
        steps, values = points(history, lambda p, e=ended_by: p.epochs if p.ended_by == e else None)
        if steps:
            axes.plot(
                steps, values, marker, color=colour, markersize=4, label=meaning, clip_on=False
            )
    axes.set_ylim(bottom=0)
    axes.locator_params("y", integer=True)
    _steps_axis(axes)
    _legend(axes, *axes.get_legend_handles_labels(), columns=3)


def _returns(axes: "Axes", history: History, colour: str, suffix: str) -> None:
    training = points(history, lambda p: p.training_return)
    evaluation = points(history, lambda p: p.evaluation_return)
    if training[0]:
        label = f"training episodes{suffix}"
        _curve(axes, training, color=colour, alpha=0.55, linewidth=1.2, label=label)
    if evaluation[0]:
        _curve(axes, evaluation, color=colour, linewidth=2.2, label=f"greedy policy{suffix}")


def _curve(axes: "Axes", measured: tuple[list[int], list[float]], **style: Any) -> None:
    # A curve of one point would not be seen.
    axes.plot(*measured, marker="o" if len(measured[0]) == 1 else "", **style)


def _limit(axes: "Axes", value: float) -> None:
    axes.axhline(value, color=MUTED, linewidth=1, linestyle="--")


def _legend(axes: "Axes", handles: list, labels: list[str], *, columns: int) -> None:
    axes.legend(
        handles,
        labels,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.3,
        handlelength=1.4,
        columnspacing=1.4,
        borderpad=0,
    )


def _steps_axis(axes: "Axes") -> None:
    axes.set_xlim(left=0)
    axes.locator_params("x", nbins=5, integer=True)
    axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
    axes.set_xlabel("environment steps")


def _ages_axis(axes: "Axes") -> None:
    axes.locator_params("x", nbins=8, integer=True)
    axes.set_xlabel("age of the policy that took the steps, in iterations")


def _percent(axes: "Axes") -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
