"""Reuse against none, each at the best options of a grid, then on fresh seeds.

Every setting of the grid is trained on three seeds, without reuse and with; the best of each arm,
by the median number of steps, then by the mean, is trained on five other seeds. A run that gave up
counts as the steps it gave up at. The weight of the entropy bonus stays what it is at first; all
other options are the defaults, which were chosen with reuse.

    python benchmarks/sweep.py --environment CartPole-v1 --table docs/sample-efficiency.parquet
"""

import argparse
import math
import statistics
from itertools import product
from pathlib import Path

from protocol import SEEDS, TASKS, Result, figures
from sample_efficiency import Asked, measured, written

GRID = {
    "learning_rate": [1e-3, 2e-3, 4e-3],
    "iteration_steps": [64, 128, 256],
    "epochs": [20, 40],
}
ARMS: dict[str, dict[str, object]] = {
    "without reuse": {"reuse": 1, "entropy_decay": 0.0},
    "with": {"reuse": 32, "entropy_decay": 0.0},
}
CHOOSING = [0, 1, 2]
"""The seeds that options are chosen on."""


def score(results: list[Result], *, limit: int) -> tuple[float, float]:
    """Median and mean number of steps; less is better."""
    steps = [result.steps_to_threshold or math.inf for result in results]
    steps = [min(each, limit) for each in steps]
    return statistics.median(steps), statistics.fmean(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--environment", choices=TASKS, required=True)
    parser.add_argument("--steps", type=int, default=6000, help="give up after this many steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, required=True, help="Parquet file, as for the rest")
    given = parser.parse_args()

    def train(settings: list[dict[str, object]], seeds: list[int]) -> dict[str, list[Result]]:
        asked = [
            Asked(given.environment, seed, written(options), steps=given.steps)
            for options in settings
            for seed in seeds
        ]
        results = measured(asked, table=given.table, processes=given.processes)
        return {
            written(options): [r for r in results if r.options == written(options)]
            for options in settings
        }

    settings = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    print("|", " | ".join([*GRID, *ARMS]), "|")
    print("| --- " * (len(GRID) + len(ARMS)) + "|")
    best: dict[str, dict[str, object]] = {}
    swept = {
        arm: train([{**each, **options} for each in settings], CHOOSING)
        for arm, options in ARMS.items()
    }
    for each in settings:
        cells = [figures(swept[arm][written({**each, **ARMS[arm]})])[0] for arm in ARMS]
        print("|", " | ".join([*(f"{value:g}" for value in each.values()), *cells]), "|")
    for arm, options in ARMS.items():
        best[arm] = min(
            ({**each, **options} for each in settings),
            key=lambda options: score(swept[arm][written(options)], limit=given.steps),
        )
    print("\n| arm | best options | other seeds | median | CPU s |")
    print("| --- | --- | --- | --- | --- |")
    for arm, options in best.items():
        (results,) = train([options], SEEDS).values()
        print(f"| {arm} | `{written(options)}` |", " | ".join(figures(results)), "|")


if __name__ == "__main__":
    main()
