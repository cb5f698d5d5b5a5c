"""What each value of `--reuse` costs: environment steps and processor seconds to the threshold.

Draws one line for each environment, the median over the seeds, relative to no reuse.

    python benchmarks/reuse.py --table docs/sample-efficiency.parquet --out docs
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import SEEDS, TASKS, Result, figures
from sample_efficiency import DEFAULT, Asked, measured, written

from reweigh.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REUSE = [1, 2, 4, 8, 16, 32]
WIDTH, HEIGHT = 380, 300
COLOURS = (svg.ACCENT, svg.CONTRAST, svg.THIRD, svg.INK)
Figure = Callable[[Result], float]


def steps(result: Result) -> float:
    """Steps to the threshold, or the steps at which the run gave up."""
    return result.steps_to_threshold or result.steps


def cpu_seconds(result: Result) -> float:
    """Seconds of training to the threshold, or until the run gave up."""
    return result.cpu_seconds


def paint(
    axes: "Axes", results_by_arm: dict[tuple[str, int], list[Result]], figure: Figure, label: str
) -> None:
    """Draw the median of a figure over `reuse`, each environment relative to no reuse."""
    for colour, environment in zip(
        COLOURS, dict.fromkeys(name for name, _ in results_by_arm), strict=False
    ):
        middles = [statistics.median(map(figure, results_by_arm[environment, k])) for k in REUSE]
        relative = [middle / middles[0] for middle in middles]
        axes.plot(REUSE, relative, "o-", color=colour, markersize=4, label=environment)
    axes.axhline(1, color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log", base=2)
    axes.set_xticks(REUSE, [str(k) for k in REUSE])
    axes.set_xlabel("--reuse")
    axes.set_ylabel(f"{label}, without reuse 1")
    axes.set_ylim(bottom=0)
    axes.legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=10_000, help="give up after this many steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, required=True, help="Parquet file, as for the rest")
    parser.add_argument("--out", type=Path, help="folder of the two pictures")
    given = parser.parse_args()
    if len(given.environments) > len(COLOURS):
        parser.error(f"{len(COLOURS)} environments at most can be told apart")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)

    asked = {
        (environment, k): [
            Asked(environment, seed, written({"reuse": k}), steps=given.steps)
            for seed in given.seeds
        ]
        for environment in given.environments
        for k in REUSE
    }
    flat = [each for runs in asked.values() for each in runs]
    results = iter(measured(flat, table=given.table, processes=given.processes))
    results_by_arm = {key: [next(results) for _ in runs] for key, runs in asked.items()}
    print("| environment | `--reuse` | steps, each seed | median | CPU s |")
    print("| --- | --- | --- | --- | --- |")
    for (environment, k), runs in results_by_arm.items():
        print(f"| {environment} | {k} |", " | ".join(figures(runs)), "|")
    if given.out is None:
        return
    pictures: list[tuple[str, Figure, str]] = [
        ("reuse-steps", steps, "environment steps"),
        ("reuse-seconds", cpu_seconds, "processor seconds"),
    ]
    for name, figure, label in pictures:
        picture = svg.draw(
            partial(paint, results_by_arm=results_by_arm, figure=figure, label=label),
            name=name,
            label=f"{label} to the threshold over --reuse, relative to no reuse",
            width=WIDTH,
            height=HEIGHT,
        )
        written_as = svg.standalone(picture, width=WIDTH, height=HEIGHT)
        (given.out / f"{name}.svg").write_text(written_as, encoding="utf-8")


if __name__ == "__main__":
    main()
