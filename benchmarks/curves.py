"""Draws the learning curves of a table of runs: each seed, and when the median one was there.

    python benchmarks/curves.py docs/sample-efficiency.parquet --environment Acrobot-v1 --out a.svg

Several arms, one for each of --arms and --names, are drawn side by side.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from protocol import SEEDS, TASKS, Result, read

from reweigh.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 760, 380
COLOURS = (svg.CONTRAST, svg.ACCENT, svg.THIRD)


def paint(axes: "Axes", arms: dict[str, list[Result]], threshold: float) -> None:
    """Draw each seed's greedy returns, and mark where it reached the threshold."""
    for colour, (name, runs) in zip(COLOURS, arms.items(), strict=False):
        for run in runs:
            axes.plot(run.checked_at, run.returns, color=colour, linewidth=1.3, alpha=0.75)
            if run.steps_to_threshold is not None:
                end = run.steps_to_threshold, run.returns[-1]
                axes.plot(*end, "o", color=colour, markersize=6, zorder=5)
        axes.plot([], [], color=colour, linewidth=2, label=f"{name}: {told(runs, threshold)}")
    axes.axhline(threshold, color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of the greedy policy")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.09 * (len(arms) + 1) * (high - low))  # room for the legend
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left")


def told(runs: list[Result], threshold: float) -> str:
    """Say when the runs of an arm were there."""
    reached = [r.steps_to_threshold or float("inf") for r in runs]
    missed = reached.count(float("inf"))
    if median(reached) == float("inf"):
        limit = max(r.steps for r in runs)
        return f"{threshold:g} not within {limit:,} steps, {missed} of {len(runs)} seeds"
    text = f"{threshold:g} after {median(reached):,.0f} steps, the median of {len(runs)}"
    if missed:
        return f"{text}; {missed} not within {max(r.steps for r in runs):,}"
    return f"{text}; at worst {max(reached):,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--environment", choices=TASKS, required=True)
    parser.add_argument("--arms", nargs="+", default=["{}"], help="JSON of the runs' options")
    parser.add_argument("--names", nargs="+", default=["reweigh"], help="one for each arm")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    given = parser.parse_args()

    runs = [
        run
        for run in read(given.table)
        if run.environment == given.environment and run.seed in given.seeds
    ]
    arms = {}
    for name, arm in zip(given.names, given.arms, strict=True):
        options = json.dumps(json.loads(arm), sort_keys=True)
        arms[name] = [r for r in runs if r.learner == "reweigh" and r.options == options]
        if not arms[name]:
            parser.error(f"{given.table} has no runs of {given.environment} with {options}")
    picture = svg.draw(
        partial(paint, arms=arms, threshold=TASKS[given.environment].threshold),
        name="picture",
        label=f"Return over environment steps in {given.environment}: {', '.join(arms)}.",
        width=WIDTH,
        height=HEIGHT,
    )
    given.out.write_text(svg.standalone(picture, width=WIDTH, height=HEIGHT), encoding="utf-8")


if __name__ == "__main__":
    main()
