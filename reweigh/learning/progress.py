"""What an epoch tells those who watch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """One pass over the episodes learnt from, and what became of the policy."""

    epoch: int
    """From 1."""
    objective: float
    """What was maximised, the mean over the pass: for all estimators but `step` an estimate of the
    policy's value, too high by what it has learnt of these episodes' chance."""
    ess: float
    """Effective sample size of the weights, as a share of the episodes learnt from (of their steps
    with the estimator `step`)."""
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
