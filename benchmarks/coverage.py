"""How often a 95 % interval holds the value: over simulated logs of problems whose value is known.

For every problem, number of episodes, estimator and interval: the share of logs whose interval
holds the exact value, on which side the others missed it, how many estimates come with a warning,
and the share again of those that come with none. Estimators whose error comes from fitting again
(`direct_method`, `tabular_marginal`) are asked about up to 500 episodes, and not where states look
alike; bootstraps, of `weighted_per_decision` alone.

    python benchmarks/coverage.py --out docs             # two processes, about 15 minutes
    python benchmarks/coverage.py --logs 100 --episodes 50 --problems Ending
"""

import argparse
import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from interval_coverage import PROBLEMS, Coverage, measure, summary

EPISODES, LOGS = (50, 500, 5000), 1000

BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
"""Marks in evaluation.md."""

TOGETHER = 40
"""Logs that are cut from one sample."""


def cover(names: list[str], episodes: list[int], logs: int, processes: int) -> list[Coverage]:
    """The table; the same for any number of processes."""
    rows = []
    shares = [range(a, min(a + TOGETHER, logs)) for a in range(0, logs, TOGETHER)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for name, n in product(names, episodes):
            parts = list(pool.map(partial(measure, name, n), shares))
            for key in parts[0]:
                rows.append(summary(name, n, *key, np.concatenate([part[key] for part in parts])))
                print(rows[-1], flush=True)
    return rows


def table(rows: list[Coverage]) -> str:
    """Markdown: a line for each estimator and interval, a column for each problem and size."""
    columns = list(dict.fromkeys((r.problem, r.episodes) for r in rows))
    by_key = {(r.problem, r.episodes, r.estimator, r.interval): r for r in rows}
    lines = [
        "| estimator | interval | " + " | ".join(f"{p}, {n}" for p, n in columns) + " |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for one, kind in dict.fromkeys((r.estimator, r.interval) for r in rows):
        cells = [by_key.get((*column, one, kind)) for column in columns]
        shown = ["" if c is None else f"{100 * c.covered:.1f}" for c in cells]
        lines.append(f"| `{one}` | `{kind}` | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def write(rows: list[Coverage], folder: Path) -> None:
    """Writes the rows to coverage.csv, and the table between its marks in evaluation.md."""
    with (folder / "coverage.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Coverage)])
        writer.writeheader()
        for row in rows:
            rounded = {k: round(v, 5) for k, v in asdict(row).items() if isinstance(v, float)}
            writer.writerow(asdict(row) | rounded)
    page = folder / "evaluation.md"
    if page.exists():
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Runs the study, prints its table, and with `--out` writes its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--episodes", nargs="+", type=int, default=list(EPISODES))
    parser.add_argument("--logs", type=int, default=LOGS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of coverage.csv and evaluation.md")
    given = parser.parse_args()
    rows = cover(given.problems, given.episodes, given.logs, given.processes)
    print("\n" + table(rows))
    if given.out:
        write(rows, given.out)


if __name__ == "__main__":
    main()
