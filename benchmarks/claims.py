"""How often `learn` claims an improvement: over simulated logs of problems whose values are known.

    python benchmarks/claims.py --processes 2            # a thousand logs of each problem: hours
    python benchmarks/claims.py --logs 40 --problems alike improvable

A row for each problem of `tests/safety.py`: the share of logs with a claim, how many claims are
true, the share of the possible gain that they bring, and the epochs learnt.
"""

import argparse
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from safety import EVERY_CLAIM_IS_FALSE, PROBLEMS, Case, cases
from simulated import Problem

from reweigh.learning.config import LearnConfig

EPISODES, LOGS = 2000, 1000


def row(name: str, outcomes: list[Case], problem: Problem) -> str:
    """A line of the table."""
    shown = np.array([c.shown for c in outcomes])
    gains = np.array([c.gain for c in outcomes])
    share = shown.mean()
    error = math.sqrt(share * (1 - share) / len(outcomes))
    true = given = "-"
    if name not in EVERY_CLAIM_IS_FALSE:
        true = f"{(shown & (gains > 0)).mean():.1%}"
        possible = problem.value() - problem.behaviour_value()
        given = f"{gains[shown].mean() / possible:.0%}" if shown.any() else "-"
    reasons = ", ".join(
        f"{n} {why}" for why, n in Counter(c.reason for c in outcomes).most_common()
    )
    epochs = np.mean([c.epochs for c in outcomes])
    return (
        f"| {name} | {len(outcomes)} | {share:.1%} ± {error:.1%} | {true} | {given} | {epochs:.0f} "
        f"| {reasons} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=int, default=LOGS)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--estimator", default=LearnConfig.estimator)
    parser.add_argument("--min-episode-ess", type=float, default=LearnConfig.min_episode_ess)
    asked = parser.parse_args()
    config = LearnConfig(
        estimator=asked.estimator,
        min_episode_ess=asked.min_episode_ess,
        hidden=(32,),
        minibatches=2,
    )
    print(
        "| problem | logs | improvement claimed | claimed and true | share of the gain | epochs | |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in asked.problems:
        problem = PROBLEMS[name]()
        outcomes = cases(
            problem, config, episodes=asked.episodes, logs=asked.logs, processes=asked.processes
        )
        print(row(name, list(outcomes), problem), flush=True)


if __name__ == "__main__":
    main()
