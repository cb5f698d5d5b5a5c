"""The pictures of `which_weight.py`: bias by distance, deviation by horizon, where to truncate."""

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from which_weight_estimators import MARGINAL, at
from which_weight_grid import Cell, mean
from which_weight_problem import BATCHES, DISTANCES, ENUMERATED, LONGER

from reweigh.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 760, 400
AT_HORIZON, AT_DISTANCE = 6, 0.2


class Line(NamedTuple):
    """How an estimator is drawn."""

    name: str
    label: str
    colour: str
    style: str = "-"


BIAS_LINES = (
    Line("reinforce", "no weights", svg.MUTED),
    Line("geometric mean", "geometric mean", svg.THIRD, "--"),
    Line("per_decision, product of ratios truncated at 1", "ratios truncated at 1", svg.THIRD),
    Line(at("per_decision", 1), "truncated at 1", svg.ACCENT),
    Line(at("per_decision", 5), "truncated at 5", svg.ACCENT, "--"),
    Line("V-trace 1, exact V", "V-trace, exact V", svg.THIRD, ":"),
    Line("step", "step", svg.CONTRAST),
    Line("seed with γ^t", "seed", svg.CONTRAST, ":"),
)
DEVIATION_LINES = (
    Line("seed with γ^t", "seed", svg.CONTRAST, ":"),
    Line("per_decision", "per decision", svg.ACCENT),
    Line(at("per_decision", 50), "truncated at 50", svg.ACCENT, (0, (6, 2))),
    Line(at("per_decision", 5), "truncated at 5", svg.ACCENT, "--"),
    Line(at("per_decision", 1), "truncated at 1", svg.ACCENT, ":"),
    Line("step", "step", svg.CONTRAST),
    Line("trajectory", "trajectory", svg.INK),
    Line(MARGINAL, "state ratio, exact", svg.THIRD),
)


def spread_labels(axes: "Axes", ends: list[tuple[float, Line]], x: float, gap: float) -> None:
    """Writes each line's name at its right end, in order, none over another (log axis)."""
    ends = sorted(ends, key=lambda end: end[0])
    heights = [math.log10(y) for y, _ in ends]
    for _ in range(200):  # neighbours push each other apart
        for i in range(len(heights) - 1):
            short_of = gap - (heights[i + 1] - heights[i])
            if short_of > 1e-6:
                heights[i] -= short_of / 2
                heights[i + 1] += short_of / 2
    for height, (_, line) in zip(heights, ends, strict=True):
        axes.annotate(
            line.label,
            (x, 10**height),
            xytext=(7, 0),
            textcoords="offset points",
            color=line.colour,
            va="center",
            annotation_clip=False,
        )


def paint_bias(axes: "Axes", grid: list[Cell]) -> None:
    """Draws bias over the distance of the policies."""
    ends = []
    for line in BIAS_LINES:
        x, y = [], []
        for distance in DISTANCES:
            cells = [c for c in grid if c.problem.distance == distance and c.horizon == AT_HORIZON]
            x.append(mean(c.problem.kl for c in cells))
            y.append(mean(c.moments[line.name].bias for c in cells))
        visible = [i for i, b in enumerate(y) if b > 3e-4]
        axes.plot([x[i] for i in visible], [y[i] for i in visible], line.style, color=line.colour)
        ends.append((y[-1], line))
    spread_labels(axes, ends, x[-1], 0.105)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.0055, 7)
    axes.set_xlim(x[0] * 0.9, x[-1] * 3.6)
    axes.set_xticks([0.01, 0.1], ["0.01", "0.1"])
    axes.set_yticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.set_xlabel(f"KL of a step, in nats (horizon {AT_HORIZON})")
    axes.set_ylabel("bias, relative to the gradient")
    axes.text(
        x[0],
        0.0068,
        "no bias at any distance: per decision, trajectory, doubly robust, balance heuristic",
        color=svg.ACCENT,
    )


def paint_deviation(axes: "Axes", grid: list[Cell]) -> None:
    """Draws the standard deviation over the horizon."""
    ends = []
    for line in DEVIATION_LINES:
        x, y = [], []
        for horizon in (*ENUMERATED, *LONGER):
            cells = [c for c in grid if c.problem.distance == AT_DISTANCE and c.horizon == horizon]
            if line.name in cells[0].moments:
                x.append(horizon)
                y.append(mean(c.moments[line.name].deviation for c in cells))
        axes.plot(x, y, linestyle=line.style, color=line.colour)
        if x[-1] == LONGER[-1]:
            ends.append((y[-1], line))
        else:
            axes.annotate(
                line.label, (x[-1], y[-1]), xytext=(4, 6), textcoords="offset points",
                color=line.colour, ha="center",
            )  # fmt: skip
    spread_labels(axes, ends, LONGER[-1], 0.115)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, 160)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.set_xlabel("horizon, in steps (KL of each 0.1 nats)")
    axes.set_ylabel("standard deviation of one episode's gradient")


EDGES = (1.0, 1.1, 1.5, 3.0, 10.0, 100.0, 1e4, math.inf)
COLUMNS = ("below 1.1", "to 1.5", "to 3", "to 10", "to 100", "to 10,000", "above")
SHADES = {
    "per_decision": ("exact", svg.ACCENT, 0.04),
    at("per_decision", 50): ("50", svg.ACCENT, 0.12),
    at("per_decision", math.sqrt(1000) / 2): ("16", svg.ACCENT, 0.2),
    at("per_decision", 5): ("5", svg.ACCENT, 0.29),
    at("per_decision", 2): ("2", svg.ACCENT, 0.36),
    at("per_decision", math.sqrt(10) / 2): ("1.6", svg.ACCENT, 0.43),
    at("per_decision", 1): ("1", svg.ACCENT, 0.5),
    "step": ("step", svg.CONTRAST, 0.38),
}
"""From the loosest bound to the tightest: its label, colour and opacity."""
TIE = 1.01


def paint_winners(axes: "Axes", grid: list[Cell]) -> None:
    """Draws the best bound for each number of episodes and second moment."""
    from matplotlib.patches import Rectangle

    for column, (low, high) in enumerate(itertools.pairwise(EDGES)):
        cells = [c for c in grid if low <= c.second_moment < high]
        for row, episodes in enumerate(BATCHES):
            errors = {name: mean(c.moments[name].error(episodes) for c in cells) for name in SHADES}
            least = min(errors.values())
            best = next(name for name, error in errors.items() if error <= TIE * least)
            label, colour, alpha = SHADES[best]
            axes.add_patch(
                Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, color=colour, alpha=alpha,
                          linewidth=0)
            )  # fmt: skip
            axes.text(
                column + 0.5, row + 0.6, label, color=svg.INK, ha="center", va="center",
                fontsize=15,
            )  # fmt: skip
            axes.text(
                column + 0.5, row + 0.25, f"error {errors[best]:.2f}", color=svg.INK,
                ha="center", va="center", fontsize=10,
            )  # fmt: skip
    axes.set_xlim(0, len(COLUMNS))
    axes.set_ylim(0, len(BATCHES))
    axes.set_xticks([i + 0.5 for i in range(len(COLUMNS))], COLUMNS)
    axes.set_yticks([i + 0.5 for i in range(len(BATCHES))], [f"{n:,}" for n in BATCHES])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("E[W²]: episodes over effective sample size, at the last time")
    axes.set_ylabel("episodes")


PICTURES = {
    "bias": (paint_bias, "Relative bias of each estimator over the distance of the policies."),
    "deviation": (paint_deviation, "Standard deviation of each estimator over the horizon."),
    "winners": (
        paint_winners,
        "Where to truncate per-decision weights, by number of episodes and second moment.",
    ),
}
