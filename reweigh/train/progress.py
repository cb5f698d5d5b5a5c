"""What an iteration tells those who watch: numbers for people, none of which training needs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One iteration: collect with policy `iteration`, then improve it."""

    iteration: int
    steps: int
    """Environment steps taken so far."""
    episodes: int
    """Episodes finished so far."""
    seconds: float
    """Wall-clock seconds so far, checks and all resumptions included."""
    cpu_seconds: float
    """Processor seconds of collecting, logging and improving so far; checks are not in it."""

    training_return: float | None
    """Mean return of the episodes that ended in this iteration; None if none did."""
    evaluation_return: float | None
    """Mean return of the greedy policy after this iteration; None if it was not checked."""
    evaluation_episodes: int
    """Uncounted episodes behind `evaluation_return`."""

    reused_steps: int
    """Steps that the improvement learnt from."""
    uses: float
    """How many times a step taken so far has been in a minibatch, on average."""
    epochs: int
    """Passes over the reused steps."""
    ended_by: str
    """Why the improvement ended: "epochs", "kl" or "ess"."""
    ess: float
    """Effective sample size of the new policy's step weights, as a share of the reused steps."""
    mean_weight: float
    """Mean step weight: 1 in expectation."""
    max_weight: float
    """Largest step weight."""
    kl: float
    """How far the improvement moved the policy: nats per step, estimated on the reused actions."""
    entropy: float
    """Mean entropy of the new policy, in nats."""
    policy_loss: float
    value_loss: float
    """Mean losses of the last epoch; the value's in units of the returns' variance."""

    ess_by_age: tuple[float, ...]
    """Effective sample size as a share of each policy's own steps; age 0, the newest, first."""
    mean_weight_by_age: tuple[float, ...]
    """Mean step weight of each policy's own steps; age 0 first."""
    weight_histogram: tuple[int, ...]
    """Reused steps by log10 of the weight, in `HISTOGRAM_BINS` equal bins from -2 to 2, the first
    and the last open to the outside."""
    dropped: tuple[str, ...]
    """A line for each episode dropped because the environment raised."""


HISTOGRAM_BINS = 40
