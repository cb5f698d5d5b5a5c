"""Processor time of collection, in microseconds an environment step, and where it goes.

    python benchmarks/collection.py
    python benchmarks/collection.py --repetitions 9 --steps 16384

Environments of Gymnasium, stepped side by side by a 64-64 tanh policy on one thread; medians of the
repetitions, which take the rows in turn. `environment` is Gymnasium's own `make(id)` alone, stepped
and reset in a loop; `policy` is what draws the actions, and the log-probs of what was drawn; `rest`
is all else: vectorising, seeding of episodes, guarding, packing.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import gymnasium as gym
import numpy as np
import torch

from reweigh.acting.collect import Collector
from reweigh.acting.environments import Slot, make, make_vector, policy_description
from reweigh.acting.policy import build
from reweigh.acting.sampling import sampler_of

ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1"]
COUNTS = [1, 8, 32]
SEED = 1


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


class Row:
    """One environment, so many side by side."""

    def __init__(self, environment: str, count: int, steps: int):
        self.environment, self.count, self.ticks = environment, count, steps // count
        env = make(environment)
        self.policy = build(policy_description(env, (64, 64)))
        slots = [Slot(i) for i in range(count)]
        self.collector = Collector(make_vector(environment, seed=SEED, slots=slots), SEED)
        self.alone = gym.make(environment, disable_env_checker=True)
        self.actions = [self.alone.action_space.sample() for _ in range(100)]
        self.version = 0
        self.measured: list[tuple[float, ...]] = []
        self._collect(10 * count)

    def measure(self) -> None:
        """Add a measurement of all, the environment and the policy, each an environment step."""
        steps = self.ticks * self.count
        self.version += 1
        parts = [
            seconds(lambda: self._collect(steps)),
            seconds(lambda: self._step(steps)),
            seconds(self._act),
        ]
        self.measured.append(tuple(1e6 * part / steps for part in parts))

    def _collect(self, steps: int) -> None:
        self.collector.collect(self.policy, version=self.version, steps=steps)

    def _step(self, steps: int) -> None:
        self.alone.reset(seed=SEED)
        for i in range(steps):
            _, _, terminated, truncated, _ = self.alone.step(self.actions[i % 100])
            if terminated or truncated:
                self.alone.reset()

    def _act(self) -> None:
        observations = self.collector.observations
        with torch.no_grad():
            sampler = sampler_of(self.policy, version=self.version, seed=SEED)
            actions = [sampler.act(observations) for _ in range(self.ticks)]
            sampler.log_probs(np.stack([observations] * self.ticks), np.stack(actions))

    def __str__(self) -> str:
        total, environment, policy = (median(column) for column in zip(*self.measured, strict=True))
        rest = median(all_of - env - drawn for all_of, env, drawn in self.measured)
        return (
            f"{self.environment:14}{self.count:>13}{total:>9.1f}{environment:>13.1f}"
            f"{policy:>9.1f}{rest:>9.1f}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--steps", type=int, default=8192, help="of each repetition")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rows = [Row(name, count, chosen.steps) for name in ENVIRONMENTS for count in COUNTS]
    for _ in range(chosen.repetitions):
        for row in rows:
            row.measure()
    print(
        f"{'':14}{'environments':>13}{'all':>9}{'environment':>13}{'policy':>9}{'rest':>9}"
        "   us of CPU a step"
    )
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
