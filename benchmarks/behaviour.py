"""What estimating the behaviour does to weighted estimates of a value, on logs of a known problem.

    python benchmarks/behaviour.py      # the tables of docs/behaviour.md; minutes

Each row is a source of the behaviour's log-probabilities: as recorded; from the other folds'
counts, as `counts` gives them and without its correction; from counts of all episodes.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from problems import ending
from simulated import Problem

from reweigh.behaviour import counts, estimate_behaviour
from reweigh.behaviour.fitted import distribution, log_prob
from reweigh.data import Trajectories
from reweigh.data.episodes import InMemory

LOGS = {50: 2000, 200: 1000, 1000: 400}
"""How many logs of how many episodes."""


def log_probs(problem: Problem, log: Trajectories) -> dict[str, np.ndarray]:
    """The behaviour's log-probabilities, by where they come from."""
    model = partial(counts, smoothing=1.0)
    behaviour = estimate_behaviour(InMemory(log, problem.schema), model=model)
    fold = behaviour.folds.of_steps(log)
    uncorrected = np.empty(log.steps)
    for k in range(behaviour.folds.count):
        of_fold = fold == k
        policy = distribution(behaviour.fitted.policies[k], log.observations[of_fold])
        uncorrected[of_fold] = log_prob(policy, log.actions[of_fold])
    return {
        "recorded": log.log_prob_behaviour,
        "cross-fitted": behaviour.log_prob_behaviour(log),
        "uncorrected": uncorrected,
        "in-sample": log_prob(distribution(behaviour.policy, log.observations), log.actions),
    }


def estimates(problem: Problem, log: Trajectories, behaviour: np.ndarray) -> list[np.floating]:
    """Importance sampling, weighted importance sampling, per-decision; the mean weight."""
    ratios = np.log(problem.target[log.observations, log.actions]) - behaviour
    sums = np.cumsum(ratios)
    prefix = sums - np.repeat((sums - ratios)[log.start], log.lengths)
    time = np.arange(log.steps) - np.repeat(log.start, log.lengths)
    rewards = problem.discount**time * log.rewards
    weights, returns = np.exp(prefix[log.stop - 1]), np.add.reduceat(rewards, log.start)
    weighted = weights @ returns
    per_decision = np.exp(prefix) @ rewards / len(log)
    return [weighted / len(log), weighted / weights.sum(), per_decision, weights.mean()]


def main() -> int:
    """Prints a table for each size of log."""
    problem = ending()
    value = problem.value()
    for episodes, count in LOGS.items():
        estimates_by_name: dict[str, list[list[np.floating]]] = {}
        for seed in range(count):
            log = problem.sample(episodes, seed=seed)
            for name, behaviour in log_probs(problem, log).items():
                estimates_by_name.setdefault(name, []).append(estimates(problem, log, behaviour))
        print(f"{episodes} episodes, {count} logs, value {value:.3f}: bias and root mean square")
        print(f"{'':14}{'IS':>16}{'WIS':>16}{'PDIS':>16}{'mean weight':>14}")
        for name, rows in estimates_by_name.items():
            errors = np.array(rows) - value
            columns = "".join(
                f"{errors[:, i].mean():8.3f}{np.sqrt((errors[:, i] ** 2).mean()):8.3f}"
                for i in range(3)
            )
            print(f"{name:14}{columns}{np.array(rows)[:, 3].mean():14.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
