"""How sample efficiency is measured, and the table that every measured run is a row of.

At each check the policy is frozen and its mode plays 100 fresh episodes whose steps are not
counted; the figure is the number of environment steps at the first check whose mean return reaches
the threshold. All seeds are reported, a miss as `-`.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

EPISODES = 100
SEEDS = [5, 6, 7, 8, 9]
"""Those that are reported. Options were chosen on 0 to 25, so on these too, on 100 to 119 and on
300 to 343: none was chosen on 200 to 219."""


@dataclass(frozen=True)
class Task:
    """What is to be reached, how often it is checked, and when a learner gives up."""

    threshold: float
    check_every: int
    give_up: int


TASKS = {
    "CartPole-v1": Task(475.0, 128, 20_000),
    "Acrobot-v1": Task(-100.0, 512, 20_000),
    "Pendulum-v1": Task(-200.0, 512, 20_000),
    "InvertedPendulum-v5": Task(950.0, 512, 20_000),
    "LunarLander-v3": Task(200.0, 4096, 400_000),
    "MountainCar-v0": Task(-110.0, 512, 20_000),
    "MountainCarContinuous-v0": Task(90.0, 512, 20_000),
}
"""A check of LunarLander-v3 takes as many steps as the training between two of them."""


@dataclass(frozen=True)
class Result:
    """One training run."""

    learner: str
    environment: str
    seed: int
    options: str
    """JSON of the options that are not the learner's defaults."""
    steps_to_threshold: int | None
    steps: int
    """At the end, which is the threshold or where it gave up."""
    seconds: float
    cpu_seconds: float
    """Of training, checks aside."""
    checked_at: tuple[int, ...]
    """Environment steps of each check."""
    returns: tuple[float, ...]
    """Mean return of the greedy policy at each."""

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What no two rows of a table share."""
        return self.learner, self.environment, self.seed, self.options


def read(path: Path) -> list[Result]:
    """The rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    names = [field.name for field in fields(Result)]
    return [
        Result(**{n: tuple(row[n]) if isinstance(row[n], list) else row[n] for n in names})
        for row in pq.ParquetFile(path).read(use_threads=False).to_pylist()
    ]


def write(path: Path, results: Iterable[Result]) -> None:
    """Writes a table anew, sorted; a run that is stopped leaves the last one."""
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("learner", "environment")),
            ("seed", pa.int64()),
            ("options", pa.string()),
            *((name, pa.int64()) for name in ("steps_to_threshold", "steps")),
            *((name, pa.float64()) for name in ("seconds", "cpu_seconds")),
            ("checked_at", pa.list_(pa.int64())),
            ("returns", pa.list_(pa.float64())),
        ]
    )
    rows = [asdict(result) for result in sorted(results, key=lambda result: result.key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), unfinished)
    unfinished.replace(path)


def figures(results: Sequence[Result]) -> tuple[str, str, str]:
    """Steps to the threshold of each seed, their median, and the median processor seconds.

    Where most seeds gave up, the seconds are those of giving up, and marked so.
    """
    results = sorted(results, key=lambda result: result.seed)
    reached = [r.steps_to_threshold for r in results]
    middle = statistics.median(float("inf") if steps is None else steps for steps in reached)
    return (
        " ".join("-" if steps is None else str(steps) for steps in reached),
        "-" if middle == float("inf") else f"{middle:,.0f}",
        f"{'>' if middle == float('inf') else ''}"
        f"{statistics.median(r.cpu_seconds for r in results):.1f}",
    )


def markdown(results: Sequence[Result]) -> str:
    """A table: a row for each environment, learner and options."""
    rows: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        rows.setdefault((result.environment, result.learner, result.options), []).append(result)
    lines = [
        "| environment (threshold) | learner | options | steps to the threshold, each seed "
        "| median | CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (environment, learner, options), runs in rows.items():
        steps, middle, cpu = figures(runs)
        threshold = TASKS[environment].threshold
        lines.append(
            f"| {environment} ({threshold:g}) | {learner} | `{options}` | {steps} | {middle} "
            f"| {cpu} |"
        )
    return "\n".join(lines)
