"""Options that suit an environment, where none are given: a set for each kind of environment.

They were found on few environments (docs/sample-efficiency.md), and are where to begin with others:
`DISCRETE` and `CONTINUOUS`, by the actions, in classic control and whatever is not told apart here;
`MUJOCO` where a simulator's positions and velocities are seen; `BOX2D` where episodes are long and
tens of thousands of steps are needed.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Suited:
    """Values of the options of `TrainConfig` that depend on the environment."""

    iteration_steps: int
    first_steps: int
    environments: int
    epochs: int
    minibatches: int
    learning_rate: float
    max_kl: float
    trace_lambda: float
    entropy: float
    entropy_decay: float
    standardise: bool


DISCRETE = Suited(
    iteration_steps=64,
    first_steps=1000,
    environments=1,
    epochs=30,
    minibatches=4,
    learning_rate=4e-3,
    max_kl=0.2,
    trace_lambda=0.95,
    entropy=0.4,
    entropy_decay=0.1,
    standardise=False,
)
# The entropy of choices is bounded, and flat where it is largest; that of a Gaussian grows with the
# logarithm of its deviation, and the same weight holds a policy further from its best.
CONTINUOUS = replace(
    DISCRETE,
    iteration_steps=128,
    first_steps=0,
    epochs=40,
    learning_rate=2e-3,
    entropy=0.1,
    entropy_decay=0.0,
)
MUJOCO = replace(
    CONTINUOUS,
    learning_rate=3e-3,
    max_kl=0.3,
    trace_lambda=0.9,
    entropy=0.05,
    standardise=True,
)
BOX2D = Suited(
    iteration_steps=512,
    first_steps=0,
    environments=4,
    epochs=10,
    minibatches=16,
    learning_rate=1e-3,
    max_kl=0.1,
    trace_lambda=0.95,
    entropy=0.01,
    entropy_decay=0.0,
    standardise=False,
)


def suited_to(entry_point: str, *, discrete_actions: bool) -> Suited:
    """Return the set for an environment, by where Gymnasium says its class is, and its actions."""
    if ".mujoco" in entry_point:
        return MUJOCO
    if ".box2d" in entry_point:
        return BOX2D
    return DISCRETE if discrete_actions else CONTINUOUS
