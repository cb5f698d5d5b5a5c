"""The policy gradient from an estimated state ratio, beside that from products of ratios.

Random Markov decision processes (6 states, 3 actions, transitions and first states from flat
Dirichlet distributions, standard normal rewards, γ = 0.95), softmax policies by table, the target's
logits the behaviour's plus 0.6 times a standard normal (`--spread norm`: plus a random vector of
length 0.6 in each state). 2000 episodes of the behaviour a batch. The figure is the root of the
mean squared error of the gradient over batches, relative to the norm of the exact gradient by
dynamic programming: its mean over the problems, and in brackets the largest quotient, over the
problems, by the error of PDIS on the same batches.

    python benchmarks/state_ratio.py                          # the table of the docs
    python benchmarks/state_ratio.py --horizons 20 --problems 2 --batches 3 --csv rows.csv

`discounted` and `kernel` know no horizon: they aim at the gradient of the problem without one, and
are measured against that; the PDIS they are divided by is still that of the finite one.
"""

import argparse
import csv
import statistics
from pathlib import Path

import torch
from state_ratio_estimators import ESTIMATORS, estimate
from state_ratio_sample import problem, simulate


def relative_errors(
    seed: int, *, horizon: int, batches: int, episodes: int, spread: str = "normal"
) -> dict[str, float]:
    """Each estimator's relative root mean squared error in one problem."""
    given = problem(seed, spread)
    finite, endless = given.gradient(horizon), given.gradient(2000)
    squares: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for batch in range(batches):
        x = simulate(given, horizon=horizon, episodes=episodes, seed=1000 * seed + batch)
        for name, (objective, without_horizon) in ESTIMATORS.items():
            want = endless if without_horizon else finite
            error = estimate(objective, x) - want
            squares[name].append(float(error.square().sum() / want.square().sum()))
    return {name: statistics.fmean(errors) ** 0.5 for name, errors in squares.items()}


def main() -> None:
    """Measures, prints the table, and with `--csv` writes a row for each problem."""
    parser = argparse.ArgumentParser(
        description="the policy gradient from an estimated state ratio"
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--problems", type=int, default=6)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--spread", choices=["normal", "norm"], default="normal")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for horizon in given.horizons:
        for seed in range(given.problems):
            errors = relative_errors(
                seed,
                horizon=horizon,
                batches=given.batches,
                episodes=given.episodes,
                spread=given.spread,
            )
            rows += [
                {"horizon": horizon, "problem": seed, "estimator": name, "relative_rmse": error}
                for name, error in errors.items()
            ]
    report(rows, given.horizons)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | {"relative_rmse": f"{row['relative_rmse']:.4f}"} for row in rows)


def report(rows: list[dict], horizons: list[int]) -> None:
    """Prints a table in Markdown."""

    def errors(horizon, name):
        return [
            r["relative_rmse"] for r in rows if r["horizon"] == horizon and r["estimator"] == name
        ]

    print("| estimator |" + "".join(f" H = {h} |" for h in horizons))
    print("|---|" + "---|" * len(horizons))
    for name in ESTIMATORS:
        line = f"| {name} |"
        for horizon in horizons:
            of_name, pdis = errors(horizon, name), errors(horizon, "PDIS")
            worst = max(a / b for a, b in zip(of_name, pdis, strict=True))
            line += f" {statistics.fmean(of_name):.3f} ({worst:.2f}) |"
        print(line)


if __name__ == "__main__":
    main()
