"""Environment steps and processor seconds until the greedy policy reaches the threshold.

The protocol is that of `protocol.py`. Runs go side by side, one thread each; each is a row of a
Parquet table, and those that the table has are not run again. A run's figures do not depend on the
others, but for its seconds.

    python benchmarks/sample_efficiency.py                         # the defaults, five seeds
    python benchmarks/sample_efficiency.py --environments CartPole-v1 --options '{"reuse": 1}'
    python benchmarks/sample_efficiency.py --table docs/sample-efficiency.parquet
"""

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from protocol import EPISODES, TASKS, Result, markdown, read, write

DEFAULT = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "InvertedPendulum-v5"]


def measure(environment: str, seed: int, steps: int, options: str) -> Result:
    """Train once in this process, in a run folder that is removed."""
    from reweigh.train.config import TrainConfig
    from reweigh.train.loop import train
    from reweigh.train.start import collect_here, new_run

    task = TASKS[environment]
    config = TrainConfig(
        **{
            "environment": environment,
            "seed": seed,
            "steps": steps,
            "threshold": task.threshold,
            "check_every": task.check_every,
            "evaluation_episodes": EPISODES,
            **json.loads(options),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(Path(folder) / "run", config)
        history = list(train(run, collect_here(run)))
    last = history[-1]
    checks = [(p.steps, r) for p in history if (r := p.evaluation_return) is not None]
    reached = [steps for steps, found in checks if found >= task.threshold]
    return Result(
        learner="reweigh",
        environment=environment,
        seed=seed,
        options=options,
        steps_to_threshold=reached[0] if reached else None,
        steps=last.steps,
        seconds=round(last.seconds, 2),
        cpu_seconds=round(last.cpu_seconds, 2),
        checked_at=tuple(steps for steps, _ in checks),
        returns=tuple(found for _, found in checks),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--options", nargs="+", default=["{}"], help="JSON of train's options")
    parser.add_argument("--steps", type=int, help="give up after this many steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, help="Parquet file that has the rows, and gets them")
    given = parser.parse_args()

    options = [json.dumps(json.loads(each), sort_keys=True) for each in given.options]
    kept = [] if given.table is None else read(given.table)
    done = {result.key: result for result in kept}
    asked = [
        ("reweigh", environment, seed, option)
        for environment in given.environments
        for option in options
        for seed in given.seeds
    ]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(measure, name, seed, given.steps or TASKS[name].give_up, option)
            for key in asked
            if key not in done
            for _, name, seed, option in [key]
        ]
        for job in as_completed(jobs):
            result = job.result()
            done[result.key] = result
            print(*result.key[1:], result.steps_to_threshold or "-", flush=True)
            if given.table is not None:
                write(given.table, done.values())
    print(markdown([done[key] for key in asked]))


if __name__ == "__main__":
    main()
