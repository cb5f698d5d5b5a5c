"""Options that suit an environment, where none are given: one set for each of Gymnasium's families.

They were found on few of its environments (docs/sample-efficiency.md), and are where to begin with
others: `CLASSIC` where episodes are short and what is seen has bounds, `MUJOCO` where a simulator's
positions and velocities are seen, `BOX2D` where episodes are long and tens of thousands of steps
are needed.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Suited:
    """Values of the options of `TrainConfig` that depend on the environment."""

    iteration_steps: int
    environments: int
    epochs: int
    minibatches: int
    learning_rate: float
    max_kl: float
    entropy: float
    standardise: bool


CLASSIC = Suited(
    iteration_steps=128,
    environments=1,
    epochs=40,
    minibatches=4,
    learning_rate=1e-3,
    max_kl=0.1,
    entropy=0.4,
    standardise=False,
)
MUJOCO = replace(CLASSIC, learning_rate=3e-3, max_kl=0.3, entropy=0.05, standardise=True)
BOX2D = replace(
    CLASSIC, iteration_steps=512, environments=4, epochs=10, minibatches=16, entropy=0.01
)


def suited_to(entry_point: str) -> Suited:
    """Return the set of an environment's family, by where Gymnasium says its class is."""
    if ".mujoco" in entry_point:
        return MUJOCO
    return BOX2D if ".box2d" in entry_point else CLASSIC
