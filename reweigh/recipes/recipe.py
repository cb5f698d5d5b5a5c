"""What a published estimator is: a value that computes a loss, and declares its expectation.

A recipe is a function of a `Sample` and of what else it needs (advantages, a critic's values), with
its knobs as keyword-only arguments. Calling it gives the loss:

    loss = rw.recipes.ppo(sample, advantages, clip=0.2)

`recipe.bind(clip=0.1)` is the same recipe with another knob, to be passed on as a value: to
`evaluate`, `learn` or `verify`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import Parameter, signature
from typing import Any, Self

import torch
from torch import Tensor

from reweigh.core import reduce
from reweigh.core.sample import Sample
from reweigh.core.terms import Terms, totals
from reweigh.recipes.expectation import BIASED, TARGET, Expectation, Gradient, Identity


@dataclass(frozen=True, eq=False)
class Recipe(ABC):
    """A published estimator."""

    function: Callable[..., Any]
    """What it computes from a `Sample`; its docstring has formula, source and use."""
    expectation: Expectation
    """Of its gradient, over episodes of any behaviour."""
    on_policy: Expectation
    """The same, where the target itself is the behaviour."""
    identity: Identity | None = None
    """What else it is exactly, for those that no expectation describes."""
    name: str = ""
    origin: "partial[Recipe] | None" = None
    """The call that makes it from another recipe; None for one that is defined in a module."""

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.function.__name__)
        # For help(), `?`, inspect.signature and pickle.
        object.__setattr__(self, "__doc__", self.function.__doc__)
        object.__setattr__(self, "__wrapped__", self.function)
        object.__setattr__(self, "__module__", self.function.__module__)

    def __reduce__(self) -> Any:
        """By its name in its module, as functions are pickled; or by the call that makes it."""
        return (self.origin, ()) if self.origin else self.name

    def __repr__(self) -> str:
        return f"<recipe {self.name}{signature(self.function)}: {self.expectation}>"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it needs beside a sample."""
        return tuple(
            name
            for name, p in list(signature(self.function).parameters.items())[1:]
            if p.kind is Parameter.POSITIONAL_OR_KEYWORD
        )

    def bind(self, **knobs: Any) -> Self:
        """The recipe with these values of its knobs.

        Raises:
            ValueError: The recipe has no such knob.
        """
        known = [
            name
            for name, p in signature(self.function).parameters.items()
            if p.kind is Parameter.KEYWORD_ONLY
        ]
        if unknown := sorted(set(knobs) - set(known)):
            raise ValueError(
                f"{self.name} has no knob {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
            )
        function = partial(self.function, **knobs)
        function.__doc__ = self.function.__doc__  # type: ignore[misc]
        return replace(self, function=function, origin=partial(type(self).bind, self, **knobs))

    @abstractmethod
    def __call__(
        self, sample: Sample, *inputs: Any, divisor: float | Tensor | None = None, **knobs: Any
    ) -> Tensor:
        """The loss, a scalar float64 whose negative gradient is the estimate.

        Args:
            sample: The steps.
            *inputs: What the recipe needs beside them, in order or by name.
            divisor: What sums over steps are divided by: that of the whole batch, where the batch
                comes in parts. Without it, what the recipe names, of this sample.
            **knobs: The recipe's.
        """


def episodes(sample: Sample) -> int:
    """The divisor of a mean over episodes, each counted once where it lies in several rows."""
    return sample.episodes


@dataclass(frozen=True, eq=False, repr=False)
class GradientRecipe(Recipe):
    """An estimator of a policy gradient: a number to maximise at each step, and a divisor."""

    divisor: Callable[[Sample], float | Tensor] | None = episodes
    """What the sum over steps is divided by; None if the function gives the scalar objective."""

    def objective(self, sample: Sample, *inputs: Any, **knobs: Any) -> Tensor:
        """What is maximised, at each step, in the shape of the sample's arguments.

        Steps that are not trained on have 0.
        """
        objective = self.function(sample, *inputs, **knobs)
        if self.divisor is None:
            return objective
        if sample.trained is not None:
            objective = torch.where(sample.trained, objective, 0.0)
        return sample.in_shape(objective)

    def __call__(
        self, sample: Sample, *inputs: Any, divisor: float | Tensor | None = None, **knobs: Any
    ) -> Tensor:
        """The loss, as in `Recipe`."""
        objective = self.objective(sample, *inputs, **knobs)
        if self.divisor is None:
            if divisor is not None:
                raise ValueError(f"{self.name} is no sum over steps: it takes no divisor")
            return -objective
        divisor = self.divisor(sample) if divisor is None else divisor
        return reduce.loss(objective.flatten(), sample.segments, divisor=divisor)


@dataclass(frozen=True, eq=False, repr=False)
class ValueRecipe(Recipe):
    """An estimator of the target's value `J`, whose derivative estimates the policy gradient."""

    by_parts: bool = True
    """Whether the terms of some episodes depend on these episodes alone."""
    estimated: str | None = TARGET
    """Whose value it is unbiased or consistent for: the target's, the behaviour's, nobody's."""

    def terms(self, sample: Sample, *inputs: Any, **knobs: Any) -> Terms:
        """What each episode adds to the estimate: value, error and intervals follow from it."""
        return self.function(sample, *inputs, **knobs)

    def estimate(self, sample: Sample, *inputs: Any, **knobs: Any) -> Tensor:
        """The estimate of `J`, a differentiable scalar float64."""
        return totals(self.terms(sample, *inputs, **knobs)).value

    def __call__(
        self, sample: Sample, *inputs: Any, divisor: float | Tensor | None = None, **knobs: Any
    ) -> Tensor:
        """The loss, the negative estimate: as in `Recipe`."""
        terms = self.terms(sample, *inputs, **knobs)
        if divisor is None:
            return -totals(terms).value
        if terms.weighted is not None:
            raise ValueError(
                f"{self.name} is self-normalised over the batch, and parts of it have no divisor: "
                "pass whole batches"
            )
        return -terms.plain.sum() / divisor


Function = Callable[..., Any]


def gradient(
    expectation: Expectation,
    *,
    on_policy: Expectation | None = None,
    identity: Identity | None = None,
    divisor: Callable[[Sample], float | Tensor] | None = episodes,
) -> Callable[[Function], GradientRecipe]:
    """Decorator that makes a recipe of a per-step objective `[S]`.

    Args:
        expectation: Of the recipe's gradient.
        on_policy: Of the same at `φ = θ`; without it, `expectation` with θ for φ.
        identity: What else it is exactly.
        divisor: As `GradientRecipe.divisor`.
    """
    return lambda function: GradientRecipe(
        function, expectation, _on_policy(expectation, on_policy), identity, divisor=divisor
    )


def value(
    expectation: Expectation,
    *,
    on_policy: Expectation | None = None,
    identity: Identity | None = None,
    by_parts: bool = True,
    estimated: str | None = TARGET,
) -> Callable[[Function], ValueRecipe]:
    """Decorator that makes a recipe of `Terms` of a value.

    Args:
        expectation: Of the derivative; the value's follows: unbiased or consistent alike.
        on_policy: As in `gradient`.
        identity: As in `gradient`.
        by_parts: As `ValueRecipe.by_parts`.
        estimated: As `ValueRecipe.estimated`.
    """
    return lambda function: ValueRecipe(
        function,
        expectation,
        _on_policy(expectation, on_policy),
        identity,
        by_parts=by_parts,
        estimated=estimated,
    )


def _on_policy(expectation: Expectation, on_policy: Expectation | None) -> Expectation:
    if on_policy is not None:
        return on_policy
    if expectation.gradient is None:
        return BIASED
    same = Gradient(TARGET, TARGET, expectation.gradient.discounted)
    return expectation._replace(gradient=same)
