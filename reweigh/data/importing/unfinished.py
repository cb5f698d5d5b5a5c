"""What to do with episodes that have no end: neither terminated nor truncated.

Whatever is summed over an episode needs to know where it ends; rows that just stop do not say.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reweigh.data.trajectories import Trajectories

Unfinished = Callable[[Trajectories], Trajectories]
"""Takes whole episodes, fragments in order; gives those that the log shall hold."""


def open_ends(trajectories: Trajectories) -> np.ndarray:
    """[E] indices of the last fragments of episodes without an end."""
    _, last = trajectories.episode_spans()
    return last[~(trajectories.terminated | trajectories.truncated)[last]]


def refuse(trajectories: Trajectories) -> Trajectories:
    """None may be without an end.

    Raises:
        ValueError: one is.
    """
    endless = open_ends(trajectories)
    if len(endless):
        i = endless[0]
        step = trajectories.time_start[i] + trajectories.lengths[i] - 1
        raise ValueError(
            f"Episode {trajectories.episode[i]} has no end: step {step} is its last, neither "
            "terminated nor truncated. Mark the ends in the source; or, if a time limit cut "
            "episodes there, say so by --unfinished truncated; or leave them out by --unfinished "
            "drop."
        )
    return trajectories


def truncated(trajectories: Trajectories) -> Trajectories:
    """They were truncated where they stop."""
    marks = trajectories.truncated.copy()
    marks[open_ends(trajectories)] = True
    return replace(trajectories, truncated=marks)


def drop(trajectories: Trajectories) -> Trajectories:
    """They are left out."""
    first, last = trajectories.episode_spans()
    spans = last - first + 1
    ended = (trajectories.terminated | trajectories.truncated)[last]
    return trajectories.select(np.repeat(ended, spans))


def keep(trajectories: Trajectories) -> Trajectories:
    """They stay as they are, as in a log that a run trains from; estimators will refuse them."""
    return trajectories
