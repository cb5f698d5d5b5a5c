"""What a recipe declares: the exact expectation of its gradient, or an identity.

`reweigh verify` holds every recipe to its declaration by enumeration; `docs/estimators.md`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

TARGET, BEHAVIOUR = "θ", "φ"


class Gradient(NamedTuple):
    """`F(x, z) = Σ_t γ^t Σ_s d_t^x(s) Σ_a ∇π_θ(a|s) Q_t^z(s, a)`, or the same without `γ^t`.

    States are visited as by `x`, and what follows the action is as by `z`: the target θ or the
    behaviour φ. `F(θ, θ)` is `∇J_γ`, the gradient of the return.
    """

    visits: str
    continues: str
    discounted: bool = True

    def __str__(self) -> str:
        names = {
            (TARGET, TARGET): "∇J",
            (BEHAVIOUR, BEHAVIOUR): "∇ of the TRPO surrogate",
        }
        of_states = f"F({self.visits}, {self.continues})"
        name = names.get((self.visits, self.continues), of_states)
        return name if self.discounted else f"{name} without γ^t"


class Expectation(NamedTuple):
    """What a recipe's gradient is in expectation over the behaviour's episodes.

    `verify` computes the expectation by enumeration, and every `Gradient` by an independent path:
    it must equal this one, and none of the others.
    """

    gradient: Gradient | None
    """None: biased, equal to no `Gradient`."""
    consistent: bool = False
    """It is so as the number of episodes grows."""
    of_one_episode: Gradient | None = None
    """A consistent estimate's from a single episode, with the exact critic; None: no `Gradient`."""
    any_critic: bool = False
    """It is so for every critic, not only for the exact one."""
    factor: Callable[[int], float] | None = None
    """The gradient is multiplied by this function of the size of a group, at the default knobs."""

    def __str__(self) -> str:
        if self.gradient is None:
            return "biased"
        words = f"a multiple of {self.gradient}" if self.factor else str(self.gradient)
        return f"{words} as N → ∞" if self.consistent else words


GRADIENT = Gradient(TARGET, TARGET)
"""`∇J_γ(θ)`."""
BIASED = Expectation(None)
UNBIASED = Expectation(GRADIENT)
CONSISTENT = Expectation(GRADIENT, consistent=True)


class Identity(NamedTuple):
    """What a recipe equals exactly, on every batch: another computation of the same gradient."""

    words: str
    """The sentence that `verify` prints."""
    knobs: dict[str, Any]
    """Knobs of the recipe under which it holds."""
    other: Callable[..., Tensor]
    """A loss with the same gradient, from the recipe's sample and inputs."""
    on_policy: bool = False
    """It holds where the target itself took the steps."""
