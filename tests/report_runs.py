"""Runs whose metrics are made up, so that a test knows every number that is to be shown."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reweigh.data.schema import ArraySpec, TrajectorySchema
from reweigh.train.config import TrainConfig
from reweigh.train.progress import HISTOGRAM_BINS, Progress
from reweigh.train.run import Checkpoint, Run
from reweigh.train.suited import DISCRETE

CONFIG = TrainConfig(
    environment="CartPole-v1", steps=4000, threshold=475.0, seed=7, epochs=40, max_kl=0.1
).resolved(suited=DISCRETE)
SCHEMA = TrajectorySchema(
    "CartPole-v1", ArraySpec("float32", (4,)), ArraySpec("int64", ()), discrete_actions=True
)


def progress(i: int) -> Progress:
    """Iteration i of a run that takes 128 steps and 2 seconds each, with a KL limit on odd ones."""
    ages = range(min(i + 1, 32))
    counts = np.zeros(HISTOGRAM_BINS, dtype=int)
    counts[HISTOGRAM_BINS // 2] = 128 * len(ages) - 28
    counts[0] = 28
    return Progress(
        iteration=i,
        steps=128 * (i + 1),
        episodes=3 * (i + 1),
        seconds=2.0 * (i + 1),
        cpu_seconds=1.6 * (i + 1),
        training_return=None if i % 3 == 1 else 10.0 + 20 * i,
        evaluation_return=11.3 + 31 * i,
        evaluation_episodes=10,
        reused_steps=128 * len(ages),
        uses=6.6 * (i + 1),
        epochs=40 if i % 2 == 0 else 17,
        ended_by="epochs" if i % 2 == 0 else "kl",
        ess=0.9 / (1 + 0.02 * i),
        mean_weight=1.004,
        max_weight=2.0 + i,
        kl=0.031 if i % 2 else 0.02,
        entropy=0.69 - 0.02 * i,
        policy_loss=-0.01 * i,
        value_loss=0.4 / (i + 1),
        ess_by_age=tuple(0.97 - 0.01 * age for age in ages),
        mean_weight_by_age=tuple(1 + 0.01 * (-1) ** age for age in ages),
        weight_histogram=tuple(counts.tolist()),
        dropped=(),
    )


def make_run(
    path: Path, history: Sequence[Progress], *, config: TrainConfig = CONFIG, reached: bool = False
) -> Run:
    """Write a run whose iterations told `history`; `reached` at the last one's check."""
    run = Run.create(path, config, replace(SCHEMA, environment=config.environment), "{}")
    for each in history:
        run.add_metrics(each)
    if history:
        last = history[-1]
        checkpoint = Checkpoint(
            version=last.iteration + 1,
            steps=last.steps,
            episodes=last.episodes,
            seconds=last.seconds,
            cpu_seconds=last.cpu_seconds,
            steps_used=round(last.uses * last.steps),
            steps_to_threshold=last.steps if reached else None,
        )
        run.save_checkpoint(checkpoint, {})
    return run


def solved_run(path: Path, *, iterations: int, config: TrainConfig = CONFIG) -> Run:
    """Write a run that reached 481.5 over 100 episodes at its last iteration."""
    history = [progress(i) for i in range(iterations)]
    history[-1] = replace(history[-1], evaluation_return=481.5, evaluation_episodes=100)
    return make_run(path, history, config=config, reached=True)
