"""The README's picture: CartPole-v1 with and without reuse, everything else the same, five seeds.

python benchmarks/picture.py                  # trains, then writes docs/learning-curve.svg
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sample_efficiency import THRESHOLDS, curve

from reweigh.report import charts, svg
from reweigh.train.progress import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENVIRONMENT = "CartPole-v1"
ARMS = {"without reuse": (svg.CONTRAST, {"reuse": 1}), "with reuse": (svg.ACCENT, {})}
WIDTH, HEIGHT = 760, 380


def paint(axes: "Axes", curves: dict[str, list[list[Progress]]], steps: int) -> None:
    """Draw each seed's greedy returns, and mark where it reached the threshold."""
    threshold = THRESHOLDS[ENVIRONMENT]
    for name, (colour, _) in ARMS.items():
        reached = []
        for history in curves[name]:
            x, y = charts.points(history, lambda p: p.evaluation_return)
            axes.plot(x, y, color=colour, linewidth=1.3, alpha=0.75)
            if y[-1] >= threshold:
                reached.append(x[-1])
                axes.plot(x[-1], y[-1], "o", color=colour, markersize=6, zorder=5)
        middle = median([*reached, *[float("inf")] * (len(curves[name]) - len(reached))])
        missed = len(curves[name]) - len(reached)
        text = f"{name}: {threshold:g} after {middle:,.0f} steps, the median of {len(curves[name])}"
        text += f"; {missed} not within {steps:,}" if missed else f"; at worst {max(reached):,}"
        axes.plot([], [], color=colour, linewidth=2, label=text)
    axes.axhline(threshold, color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of the greedy policy")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(0, 620)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=8_000, help="give up after this many steps")
    parser.add_argument("--out", type=Path, default=Path("docs/learning-curve.svg"))
    arguments = parser.parse_args()

    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool,
    ):
        jobs = {
            name: [
                pool.submit(
                    curve,
                    ENVIRONMENT,
                    seed,
                    arguments.steps,
                    json.dumps(options),
                    Path(folder) / f"{name}-{seed}",
                )
                for seed in arguments.seeds
            ]
            for name, (_, options) in ARMS.items()
        }
        curves = {name: [job.result() for job in arm] for name, arm in jobs.items()}
    picture = svg.draw(
        partial(paint, curves=curves, steps=arguments.steps),
        name="picture",
        label=f"Return over environment steps in {ENVIRONMENT}, with reuse and without.",
        width=WIDTH,
        height=HEIGHT,
    )
    arguments.out.write_text(svg.standalone(picture, width=WIDTH, height=HEIGHT), encoding="utf-8")


if __name__ == "__main__":
    main()
