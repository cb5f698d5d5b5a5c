"""Environment steps and processor seconds until the greedy policy reaches the threshold.

Protocol: at each check the policy is frozen and its mode plays 100 fresh episodes whose steps are
not counted; the figure is the number of environment steps at the first check whose mean return
reaches the threshold. Checks come every 128 steps for CartPole-v1, every 512 elsewhere. All seeds
are reported, a miss as `-`.

    python benchmarks/sample_efficiency.py                         # the table of the README
    python benchmarks/sample_efficiency.py --seeds 0 1 2 --options '{"reuse": 1}'
"""

import argparse
import csv
import json
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reweigh.train.progress import Progress

THRESHOLDS = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "Pendulum-v1": -200.0,
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 90.0,
    "InvertedPendulum-v5": 950.0,
    "LunarLander-v3": 200.0,
}


@dataclass(frozen=True)
class Result:
    """One training run."""

    environment: str
    seed: int
    options: str
    steps_to_threshold: int | None
    steps: int
    seconds: float
    cpu_seconds: float
    last_return: float


def curve(environment: str, seed: int, steps: int, options: str, folder: Path) -> "list[Progress]":
    """Train once in this process, in a run folder of its own; return what each iteration told."""
    from reweigh.train.config import TrainConfig
    from reweigh.train.loop import train
    from reweigh.train.start import collect_here, new_run

    config = TrainConfig(
        **{
            "environment": environment,
            "seed": seed,
            "steps": steps,
            "threshold": THRESHOLDS[environment],
            "check_every": 128 if environment == "CartPole-v1" else 512,
            "evaluation_episodes": 100,
            **json.loads(options),
        }
    )
    run = new_run(folder, config)
    return list(train(run, collect_here(run)))


def measure(environment: str, seed: int, steps: int, options: str) -> Result:
    """Train once and keep the figures alone."""
    with tempfile.TemporaryDirectory() as folder:
        history = curve(environment, seed, steps, options, Path(folder) / "run")
    last = history[-1]
    returns = [p.evaluation_return for p in history if p.evaluation_return is not None]
    if not returns:
        raise ValueError(f"{steps} steps of {environment} end before the first check; give more")
    return Result(
        environment=environment,
        seed=seed,
        options=options,
        steps_to_threshold=last.steps if max(returns) >= THRESHOLDS[environment] else None,
        steps=last.steps,
        seconds=round(last.seconds, 2),
        cpu_seconds=round(last.cpu_seconds, 2),
        last_return=round(returns[-1], 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--environments", nargs="+", default=["CartPole-v1", "Acrobot-v1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=20_000, help="give up after this many steps")
    parser.add_argument("--options", default="{}", help="JSON of options of `reweigh train`")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append every run to this CSV file")
    arguments = parser.parse_args()

    context = get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        jobs = [
            pool.submit(measure, environment, seed, arguments.steps, arguments.options)
            for environment in arguments.environments
            for seed in arguments.seeds
        ]
        results = [job.result() for job in jobs]

    print(f"{'environment':24} {'steps to threshold, each seed':44} {'median':>8} {'CPU s':>6}")
    for environment in arguments.environments:
        mine = [r for r in results if r.environment == environment]
        figures = [r.steps_to_threshold for r in mine]
        median = statistics.median(float("inf") if f is None else f for f in figures)
        print(
            f"{environment:24} {' '.join('-' if f is None else str(f) for f in figures):44} "
            f"{median:8g} {statistics.median(r.cpu_seconds for r in mine):6.1f}"
        )
    if arguments.out:
        new = not arguments.out.exists()
        with arguments.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(results[0])))
            if new:
                writer.writeheader()
            writer.writerows(asdict(r) for r in results)


if __name__ == "__main__":
    main()
