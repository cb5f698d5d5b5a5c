"""Environment steps and processor seconds until the greedy policy reaches the threshold.

The protocol is that of `protocol.py`. Runs go side by side, one thread each; each is a row of a
Parquet table, and those that the table has are not run again. A run's figures do not depend on the
others, but for its seconds.

    python benchmarks/sample_efficiency.py                         # the defaults, five seeds
    python benchmarks/sample_efficiency.py --environments CartPole-v1 --options '{"reuse": 1}'
    python benchmarks/sample_efficiency.py --variations "ratios ignored"    # of variations.py
    python benchmarks/sample_efficiency.py --table docs/sample-efficiency.parquet
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from protocol import EPISODES, SEEDS, TASKS, Result, markdown, read, write

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from variations import VARIATIONS

DEFAULT = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "InvertedPendulum-v5"]


@dataclass(frozen=True)
class Asked:
    """A training run that a table is to have."""

    environment: str
    seed: int
    options: str = "{}"
    """JSON of `train`'s options, as `written` writes it."""
    variation: str = "as it is"
    """A key of `variations.VARIATIONS`."""
    steps: int | None = None
    """Give up after so many instead of the protocol's."""

    @property
    def limit(self) -> int:
        """After how many steps it gives up."""
        return self.steps or TASKS[self.environment].give_up

    def answered_by(self, result: Result) -> Result | None:
        """What a run says of this one; None if it gave up too soon."""
        reached = result.steps_to_threshold
        if reached is None:
            return result if result.steps >= self.limit else None
        return result if reached <= self.limit else replace(result, steps_to_threshold=None)

    @property
    def learner(self) -> str:
        """What the table calls it."""
        return "reweigh" if self.variation == "as it is" else f"reweigh, {self.variation}"

    @property
    def key(self) -> tuple[str, str, int, str]:
        """That of its `Result`."""
        return self.learner, self.environment, self.seed, self.options


def written(options: dict[str, object]) -> str:
    """Options as a table has them."""
    return json.dumps(options, sort_keys=True)


def measure(asked: Asked) -> Result:
    """The result of training once in this process, in a run folder that is removed."""
    with VARIATIONS[asked.variation].networks():
        return _train(asked)


def _train(asked: Asked) -> Result:
    from reweigh.train.config import TrainConfig
    from reweigh.train.loop import train
    from reweigh.train.progress import Progress
    from reweigh.train.start import collect_here, new_run

    task = TASKS[asked.environment]
    config = TrainConfig(
        **{
            "environment": asked.environment,
            "seed": asked.seed,
            "steps": asked.limit,
            "threshold": task.threshold,
            "check_every": task.check_every,
            "evaluation_episodes": EPISODES,
            **json.loads(asked.options),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(Path(folder) / "run", config)
        history: list[Progress] = []
        try:
            improve = VARIATIONS[asked.variation].improvement()
            history.extend(train(run, collect_here(run), improve=improve))
        except ValueError as error:
            if "diverged" not in str(error) or not history:
                raise
            print(*asked.key, error, file=sys.stderr)  # it did not get there
    last = history[-1]
    checks = [(p.steps, r) for p in history if (r := p.evaluation_return) is not None]
    reached = [steps for steps, value in checks if value >= task.threshold]
    return Result(
        learner=asked.learner,
        environment=asked.environment,
        seed=asked.seed,
        options=asked.options,
        steps_to_threshold=reached[0] if reached else None,
        steps=last.steps if reached else max(last.steps, asked.limit),
        seconds=round(last.seconds, 2),
        cpu_seconds=round(last.cpu_seconds, 2),
        checked_at=tuple(steps for steps, _ in checks),
        returns=tuple(value for _, value in checks),
    )


def measured(asked: list[Asked], *, table: Path | None, processes: int) -> list[Result]:
    """The result of each run, in this order; runs that the table has are not run again."""
    done = {result.key: result for result in ([] if table is None else read(table))}
    missing = [e for e in asked if e.key not in done or e.answered_by(done[e.key]) is None]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(measure, each) for each in missing]):
            result = job.result()
            done[result.key] = result
            print(*result.key, result.steps_to_threshold or "-", file=sys.stderr, flush=True)
            if table is not None:
                write(table, done.values())
    answers = [each.answered_by(done[each.key]) for each in asked]
    return [result for result in answers if result is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--variations", nargs="+", choices=VARIATIONS, default=["as it is"])
    parser.add_argument("--options", nargs="+", default=["{}"], help="JSON of train's options")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, help="give up after this many steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, help="Parquet file that has the rows, and gets them")
    given = parser.parse_args()

    arms = product(given.environments, given.variations, map(json.loads, given.options))
    asked = [
        Asked(environment, seed, written(options), variation, given.steps)
        for environment, variation, options in arms
        for seed in given.seeds
    ]
    print(markdown(measured(asked, table=given.table, processes=given.processes)))


if __name__ == "__main__":
    main()
