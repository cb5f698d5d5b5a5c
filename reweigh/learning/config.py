"""Options of `reweigh learn`, whose field docstrings are the `--help`, and its progress."""

import math
import os
from dataclasses import dataclass

_LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class LearnConfig:
    """Improves a policy from a log alone, and tests that it is better before it is given out."""

    discount: float = 1.0
    """Discount per step of the value that is improved: rewards up to where logged episodes end."""
    level: float = 0.95
    """Confidence at which an improvement must be shown."""
    upper_bound: bool = False
    """The stricter test: the new policy's lower bound must exceed the behaviour's upper bound."""
    validation: float = 0.2
    """Share of the episodes that choose among what was learnt."""
    test: float = 0.4
    """Share of the episodes that are kept for the test of improvement; the rest is learnt from."""
    seed: int = 0
    """Divides the episodes and orders them; the same seed gives the same policy, bit for bit."""

    estimator: str = "weighted_doubly_robust"
    """What is maximised: a method of `reweigh evaluate` that needs no more than a value function
    (per_decision, doubly_robust, or self-normalised, weighted_...), or, for long episodes, ppo: the
    clipped surrogate of single steps."""
    min_episode_ess: float = 0.5
    """Trust region: the least effective sample size of the weights, as a share of the episodes
    learnt from (of their steps, with the estimator ppo)."""
    max_kl_from_behaviour: float = 1.0
    """Trust region: the largest divergence from the behaviour, nats per step."""
    pace: float = 0.1
    """How much of the way to the edge of the trust region an epoch goes."""
    epochs: int = 100
    """Passes over the episodes learnt from, at most."""
    minibatches: int = 4
    """Minibatches in a pass: one step of Adam each; of large logs, in every 500,000 steps."""
    patience: int = 10
    """Stop after so many epochs in which the lower bound on the validation episodes has not risen
    above all before."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers of the value function."""
    threads: int = 1
    """Threads of PyTorch's operations; small networks are fastest with 1."""

    def validate(self) -> None:
        """Requires options in their ranges; the estimator's name is checked when it is used.

        Raises:
            ValueError: An option out of range; names the first.
        """
        for name in ("epochs", "minibatches", "patience", "threads", "seed"):
            value, least = getattr(self, name), int(name != "seed")
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        if self.seed > _LARGEST_SEED:
            raise ValueError(f"seed is {self.seed}; it must be at most {_LARGEST_SEED}")
        if self.threads > (processors := os.cpu_count() or 1):
            raise ValueError(
                f"threads is {self.threads}; it must be at most {processors}, the processors here"
            )
        for name in ("max_kl_from_behaviour", "pace"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("discount", "min_episode_ess"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be a share, such as 0.3"
                )
        if not 0.5 < self.level < 1:
            raise ValueError(f"level is {self.level}; it must be between 0.5 and 1, such as 0.95")
        if math.isclose(self.min_episode_ess, 1):
            raise ValueError(
                "min_episode_ess is 1, and only the behaviour itself has that: give less"
            )
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation is {self.validation} and test {self.test}: nothing is left to learn "
                "from; their sum must be below 1"
            )
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden is {self.hidden}; every layer needs a width of at least 1")


@dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """One pass over the episodes learnt from, and where it took the policy."""

    epoch: int
    """From 1."""
    objective: float
    """What was maximised, the mean over the pass: for all estimators but `ppo` an estimate of the
    policy's value, too high by what it has learnt of these episodes' chance."""
    ess: float
    """Effective sample size of the weights, as a share of the episodes learnt from (of their steps
    with the estimator `ppo`)."""
    kl: float
    """Nats per step from the behaviour."""
    undone: str | None
    """The bound of the trust region, "ess" or "kl", that the epoch broke: it was undone, and the
    next one takes half the step. None if it stands."""
    improvement: float | None
    """Estimated gain on the behaviour, on the validation episodes; None if the epoch was undone."""
    predicted_bound: float | None
    """The lower bound of the gain that the test episodes are expected to give."""
    best: bool
    """Whether the policy is the one to test, as yet."""
    seconds: float
    """Wall-clock seconds since the start."""
