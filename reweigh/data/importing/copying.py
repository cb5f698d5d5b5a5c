"""A log copied with other log-probabilities: those that are estimated from its actions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from reweigh.data.log import TrajectoryLog
from reweigh.data.schema import MISSING
from reweigh.data.trajectories import Trajectories

LogProbBehaviour = Callable[[Trajectories], np.ndarray]
"""`[S]` log-probabilities, in nats, of the actions of whole episodes."""
BehaviourEstimator = Callable[[TrajectoryLog], tuple[LogProbBehaviour, str]]
"""Learns the behaviour from a log without log-probabilities: what gives them, and how, in words."""


def copied(
    log: TrajectoryLog,
    path: Path,
    log_prob_behaviour: LogProbBehaviour,
    behaviour: str,
    *,
    max_steps: int,
) -> TrajectoryLog:
    """A copy of a log with the log-probabilities that a function gives.

    Args:
        log: The log.
        path: The folder of the copy, which does not exist.
        log_prob_behaviour: Those of whole episodes.
        behaviour: Where they come from, in words.
        max_steps: The most steps in memory and in one append.

    Raises:
        ValueError: Not one log-probability a step, or one that cannot be; `behaviour` says nothing.
    """
    if behaviour in ("", MISSING):
        raise ValueError(f"behaviour is {behaviour!r}; say where the log-probabilities come from.")
    copy = TrajectoryLog.create(path, replace(log.schema, behaviour=behaviour))
    for batch in log.stream_episodes(max_steps=log.schema.steps_at_a_time(max_steps)):
        given = np.asarray(log_prob_behaviour(batch), dtype=np.float64)
        if given.shape != (batch.steps,):
            raise ValueError(
                f"log_prob_behaviour gave shape {list(given.shape)} for {batch.steps} steps; give "
                "one each."
            )
        copy.append(replace(batch, log_prob_behaviour=given))
    return copy
