"""Options of `reweigh train`: one frozen dataclass, whose field docstrings are the `--help`."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, TypeVar

from tyro.conf import Positional, arg

from reweigh.train.suited import Suited

T = TypeVar("T")
OrDefault = Annotated[T | None, arg(help_behavior_hint="")]
"""An option whose docstring says what its default depends on, so that `--help` need not."""


def settled(option: T | None) -> T:
    """Return an option that `TrainConfig.resolved` has settled."""
    assert option is not None, "a run has all of its options"
    return option


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a policy in a Gymnasium environment, reusing the steps of the last policies."""

    environment: Positional[str]
    """A Gymnasium id, such as CartPole-v1; module:id imports the module first."""
    steps: int = 50_000
    """Stop after this many environment steps."""
    minutes: float | None = None
    """Stop after this many minutes of wall-clock time."""
    threshold: OrDefault[float] = None
    """Stop when the greedy policy's mean return over 100 uncounted episodes reaches this. Default:
    the threshold registered with the environment, if it has one; inf for none."""
    seed: int = 0
    """The same seed gives the same policy, bit for bit, on the same machine."""

    reuse: int = 32
    """Train on the steps of this many last policies; 1 is on-policy, without reuse."""
    iteration_steps: OrDefault[int] = None
    """Environment steps that each policy samples. Default: 64 for discrete actions, 128 for
    continuous; 512 in Box2D."""
    first_steps: OrDefault[int] = None
    """The first policy samples iteration_steps again and again until an episode has ended, because
    no return is known before; but no longer than this many steps of all environments. Default: 1000
    for discrete actions, 0 for continuous and in Box2D."""
    environments: OrDefault[int] = None
    """Parallel environments that sample them. Default: 1; 4 in Box2D."""
    memory: int = 1
    """Let a recurrent unit (GRU) read this many last observations; 1 is the newest alone."""

    epochs: OrDefault[int] = None
    """Passes over the reused steps in one improvement, at most. Default: 30 for discrete actions,
    40 for continuous; 10 in Box2D."""
    minibatches: OrDefault[int] = None
    """Minibatches in a pass: one step of Adam each. Default: 4; 16 in Box2D."""
    learning_rate: OrDefault[float] = None
    """Step size of Adam. Default: 0.004 for discrete actions, 0.002 for continuous; 0.003 in
    MuJoCo, 0.001 in Box2D."""
    clip: float = 0.2
    """How far a step's ratio may move from where the improvement found it."""
    max_kl: OrDefault[float] = None
    """End an improvement when the policy has moved this far: nats per step, estimated on the reused
    actions. Default: 0.2; 0.3 in MuJoCo, 0.1 in Box2D."""
    min_ess: float = 0.1
    """End an improvement when the effective sample size is below this share of the reused steps."""
    discount: float = 0.99
    """Discount per step."""
    trace_lambda: OrDefault[float] = None
    """V-trace's lambda: 0 trusts the value function, 1 the rewards. Default: 0.95; 0.9 in
    MuJoCo."""
    entropy: OrDefault[float] = None
    """Weight of the entropy bonus of the first policy, beside advantages of standard deviation 1.
    Without it a policy soon stops taking the actions of its old steps, which then teach it nothing.
    Default: 0.4 for discrete actions, 0.1 for continuous; 0.05 in MuJoCo, 0.01 in Box2D."""
    entropy_decay: OrDefault[float] = None
    """The k-th policy's weight is entropy / (1 + entropy_decay k): a high one soon finds what is
    good, a low one what is best. Default: 0.1 for discrete actions, 0 for continuous and in
    Box2D."""
    max_gradient_norm: float = 0.5
    """Gradients of policy and of value function are each shortened to this length."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers of policy and value function."""
    standardise: OrDefault[bool] = None
    """Measure observations in units of the reused steps' mean and deviation, anew for each policy,
    whose version has them. Default: False; True in MuJoCo,
    whose observations have no bounds."""

    check_every: int = 128
    """Check the greedy policy every this many steps."""
    evaluation_episodes: int = 10
    """Uncounted episodes of the greedy policy at each check; 0 checks the training episodes."""
    threads: int = 1
    """Threads of PyTorch's operations; small networks are fastest with 1."""

    def validate(self) -> None:
        """Refuse options that cannot be.

        Raises:
            ValueError: names the first of them.
        """
        at_least = {
            "steps": 1, "seed": 0, "reuse": 1, "iteration_steps": 1, "first_steps": 0, "memory": 1,
            "environments": 1, "epochs": 1, "minibatches": 1, "check_every": 1, "threads": 1,
            "evaluation_episodes": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        for name in ("learning_rate", "clip", "max_kl", "max_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite")
        for name in ("entropy", "entropy_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be at least 0 and finite")
        if self.threshold is not None and math.isnan(self.threshold):
            raise ValueError("threshold is nan; give a return, or inf to go on without one")
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden is {self.hidden}; every layer needs a width of at least 1")
        for name in ("discount", "trace_lambda", "min_ess"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be between 0 and 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}; it must be positive")

    def resolved(
        self, registered: float | None = None, suited: Suited | None = None
    ) -> "TrainConfig":
        """Return the options that count, with the threshold None where there is none.

        Args:
            registered: The environment's own threshold, for want of another.
            suited: What suits the environment, for want of anything else.
        """
        threshold = registered if self.threshold is None else self.threshold
        missing = {} if suited is None else asdict(suited)
        missing = {name: v for name, v in missing.items() if getattr(self, name) is None}
        threshold = None if threshold in (None, math.inf) else float(threshold)
        return replace(self, threshold=threshold, **missing)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "TrainConfig":
        """Read options back from what `dataclasses.asdict` and JSON made of them.

        Raises:
            ValueError: options that this version does not have, or has and they are not there.
        """
        known = {field.name for field in fields(cls)}
        for which, names in (("unknown", set(values) - known), ("missing", known - set(values))):
            if names:
                raise ValueError(f"{which} options {sorted(names)}: another version wrote this run")
        return cls(**{**values, "hidden": tuple(values["hidden"])})
