"""What each part of training brings: one is taken away, or another in its place, all else the same.

An arm is a variation (`tests/variations.py`) or options; each is measured on the same seeds, by the
protocol of `protocol.py`.

    python benchmarks/ablation.py --table docs/sample-efficiency.parquet
"""

import argparse
from pathlib import Path

from protocol import SEEDS, TASKS, figures
from sample_efficiency import VARIATIONS, Asked, measured, written

OPTIONS: dict[str, dict[str, object]] = {
    "no reuse": {"reuse": 1},
    "no entropy bonus": {"entropy": 0.0},
    "no clipping": {"clip": 1e9},
    "no limit of KL or sample size": {"max_kl": 1e9, "min_ess": 0.0},
    "λ = 1": {"trace_lambda": 1.0},
    "λ = 0.8": {"trace_lambda": 0.8},
    "observations standardised": {"standardise": True},
}
CONTINUOUS = ("Pendulum-v1", "InvertedPendulum-v5", "MountainCarContinuous-v0")
"""Where there is noise that could depend on the state."""
ARMS = {
    **{name: (name, {}) for name in VARIATIONS},
    **{name: ("as it is", options) for name, options in OPTIONS.items()},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--environments", nargs="+", choices=TASKS, default=["CartPole-v1", "Pendulum-v1"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=6000, help="give up after this many steps")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", type=Path, required=True, help="Parquet file, as for the rest")
    given = parser.parse_args()

    asked = {
        (name, environment): [
            Asked(environment, seed, written(options), variation, given.steps)
            for seed in given.seeds
        ]
        for name, (variation, options) in ARMS.items()
        for environment in given.environments
        if name != "state-dependent noise" or environment in CONTINUOUS
    }
    results = iter(
        measured(
            [each for runs in asked.values() for each in runs],
            table=given.table,
            processes=given.processes,
        )
    )
    cells_by_arm = {key: figures([next(results) for _ in runs]) for key, runs in asked.items()}
    print("| |", " | ".join(f"{name} | median | CPU s" for name in given.environments), "|")
    print("| --- " * (1 + 3 * len(given.environments)) + "|")
    for name in ARMS:
        cells = [
            cell
            for environment in given.environments
            for cell in cells_by_arm.get((name, environment), ("", "", ""))
        ]
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
