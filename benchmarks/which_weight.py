"""Bias and variance of every weight, exactly, as horizon and policy distance grow.

Five random problems of four states and two actions. In each, the ratio of target to behaviour is a
power of `e^ε`, with ε the distance between the policies, so that a weight takes few values. Up to
six steps every trajectory is enumerated, through the library's own functions. Up to 64, for weights
that are functions of the prefix or of the step, the first two moments follow from a recurrence over
state and log-weight; where both are at hand they agree to 1e-9, or this stops. Nothing is sampled,
but the batches that `rw.recommend` is asked about.

    python benchmarks/which_weight.py                             # a table, and the rule judged
    python benchmarks/which_weight.py --out docs                  # CSV and pictures too
    python benchmarks/which_weight.py --problems 10 11 12 13 14   # problems not looked at before
"""

import argparse
import csv
import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from which_weight_grid import Cell, Verdict, cells, mean, print_rule, verdict
from which_weight_pictures import AT_HORIZON, HEIGHT, PICTURES, WIDTH
from which_weight_problem import BATCHES, DISTANCES, ENUMERATED, JUDGED, LONGER

from reweigh.report import svg


def print_table(grid: list[Cell], distance: float, horizon: int) -> None:
    """Prints the estimators at one distance and horizon."""
    subset = [c for c in grid if c.problem.distance == distance and c.horizon == horizon]
    print(
        f"Horizon {horizon}, KL {mean(c.problem.kl for c in subset):.3f} nats a step, E[W²] "
        f"{mean(c.second_moment for c in subset):.3g}; relative to the norm of the gradient"
    )
    heads = "".join(f"{f'N={n:,}':>10}" for n in BATCHES)
    print(f"{'estimator':48}{'bias':>8}{'std':>8}{heads}")
    for name in subset[0].moments:
        bias = mean(c.moments[name].bias for c in subset)
        deviation = mean(c.moments[name].deviation for c in subset)
        errors = "".join(f"{mean(c.moments[name].error(n) for c in subset):10.3f}" for n in BATCHES)
        print(f"{name:48}{bias:8.3f}{deviation:8.2f}{errors}")


def write_csv(grid: list[Cell], path: Path) -> None:
    """Writes a row for each distance, horizon and estimator."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["horizon", "distance", "kl_per_step", "second_moment", "estimator", "bias", "std"]
        writer.writerow([*head, *(f"rmse_{n}" for n in BATCHES)])
        for distance in DISTANCES:
            for horizon in (*ENUMERATED, *LONGER):
                subset = [
                    c for c in grid if c.problem.distance == distance and c.horizon == horizon
                ]
                for name in subset[0].moments:
                    numbers = [
                        mean(c.problem.kl for c in subset),
                        mean(c.second_moment for c in subset),
                        name,
                        mean(c.moments[name].bias for c in subset),
                        mean(c.moments[name].deviation for c in subset),
                        *(mean(c.moments[name].error(n) for c in subset) for n in BATCHES),
                    ]
                    cells_of_row = [x if isinstance(x, str) else f"{x:.4g}" for x in numbers]
                    writer.writerow([horizon, distance, *cells_of_row])


def known(seed_and_distance: tuple[int, float]) -> tuple[list[Cell], list[Verdict]]:
    """The cells of a problem at a distance, and the verdicts on batches: one process's work."""
    torch.set_num_threads(1)
    known_cells = cells(*seed_and_distance)
    judged = [c for c in known_cells if c.horizon in JUDGED]
    return known_cells, [verdict(c, episodes) for c in judged for episodes in BATCHES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--problems", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write which-weight.csv and the pictures here")
    arguments = parser.parse_args()

    jobs = list(itertools.product(arguments.problems, DISTANCES))
    context = get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        known_cells = list(pool.map(known, jobs))
    grid = [cell for group, _ in known_cells for cell in group]
    print_table(grid, 0.35, AT_HORIZON)
    print_rule([v for _, verdicts in known_cells for v in verdicts])
    if arguments.out:
        write(grid, arguments.out)


def write(grid: list[Cell], folder: Path) -> None:
    """Writes which-weight.csv and the pictures."""
    write_csv(grid, folder / "which-weight.csv")
    for name, (paint, label) in PICTURES.items():
        picture = svg.draw(
            partial(paint, grid=grid), name=name, label=label, width=WIDTH, height=HEIGHT
        )
        path = folder / f"which-weight-{name}.svg"
        path.write_text(svg.standalone(picture, width=WIDTH, height=HEIGHT), encoding="utf-8")


if __name__ == "__main__":
    main()
