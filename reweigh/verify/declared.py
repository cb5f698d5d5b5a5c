"""Recipes beside what they declare: an expectation, an identity, the published formula.

A recipe's expectation is the sum over every trajectory that a problem has, each with its exact
probability (over every pair of them, for recipes that compare episodes). What it must be comes from
dynamic programming in NumPy (`problem.py`), from the published formula in loops (`formulas.py`), or
from another recipe; and it must be no other of the eight gradients.
"""

from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any, get_args

import torch
from torch import Tensor

from reweigh.core.terms import Weighted, totals
from reweigh.recipes import Grouped
from reweigh.recipes.expectation import BEHAVIOUR, TARGET, Expectation, Gradient, Identity
from reweigh.recipes.recipe import Recipe, ValueRecipe
from reweigh.verify.batches import mean_gradient
from reweigh.verify.cases import Case, enumerated, logged
from reweigh.verify.formulas import FORMULAS, KNOBS, answers
from reweigh.verify.golden import Problem, entry, tensor
from reweigh.verify.numerics import relative_error

PAIRS_UP_TO = 200
"""Pairs of trajectories are enumerated on problems with at most this many of them."""

EQUAL = 1e-6
"""Relative error below which an expectation is taken to be a gradient that is not declared."""

GRADIENTS = tuple(
    Gradient(visits, continues, discounted)
    for visits in (TARGET, BEHAVIOUR)
    for continues in (TARGET, BEHAVIOUR)
    for discounted in (True, False)
)
"""The eight that an expectation is compared with."""


class Trial:
    """A problem on which recipes are tried."""

    def __init__(self, problem: Problem, file: dict[str, Any]):
        self.problem = problem
        self.batch = logged(problem, entry(file, "batch", dict), horizon=problem.horizon)
        mixed = entry(file, "mix_batch", dict)
        self.sources = tuple(entry(mixed, "sources", list))
        self.counts = tuple(int(count) for count in tensor(mixed, "counts", -1))
        self.everything = cache(self._everything)
        self.gradients = cache(self._gradients)

    def _everything(self, *behaviours: str) -> Case:
        return enumerated(self.problem, list(behaviours), self._counts(behaviours))

    def _counts(self, behaviours: tuple[str, ...]) -> tuple[int, ...]:
        return self.counts if len(behaviours) > 1 else (1,)

    def _gradients(self, *behaviours: str, discount: float) -> dict[Gradient, Tensor]:
        """The eight gradients; of several behaviours, by their shares of the episodes."""
        exact = replace(self.problem.exact, discount=discount)
        target = exact.policy(self.problem.table("theta"))
        counts = self._counts(behaviours)
        sums = {gradient: torch.zeros_like(self.problem.logits["theta"]) for gradient in GRADIENTS}
        for name, count in zip(behaviours, counts, strict=True):
            policies = {TARGET: target, BEHAVIOUR: exact.policy(self.problem.table(name))}
            for gradient in GRADIENTS:
                part = exact.policy_gradient(
                    self.problem.table("theta"),
                    visits=policies[gradient.visits],
                    continues=policies[gradient.continues],
                    discounted=gradient.discounted,
                )
                sums[gradient] = sums[gradient] + count / sum(counts) * torch.from_numpy(part)
        return {gradient: x.detach() for gradient, x in sums.items()}

    def errors(self, recipe: Recipe) -> tuple[dict[str, float], list[str]]:
        """Errors of a recipe by quantity, and what it equals without declaring it."""
        errors: dict[str, float] = {}
        undeclared: list[str] = []
        behaviours = self.sources if "log_prob_sources" in recipe.inputs else ("phi",)
        for quantity, expectation, sampled_by in (
            ("expectation", recipe.expectation, behaviours),
            ("on-policy", recipe.on_policy, ("theta",) * len(behaviours)),
        ):
            critics = ("theta", "critic") if expectation.any_critic else ("theta",)
            for critic in critics:
                case = replace(self.everything(*sampled_by), critic=critic)
                if _compares(recipe) and len(case.sample) > PAIRS_UP_TO:
                    continue
                error, equal = self._expectation(recipe, expectation, case, sampled_by)
                errors[quantity] = max(errors.get(quantity, 0.0), error)
                undeclared += [f"{quantity} equals {gradient}" for gradient in equal]
        if isinstance(recipe, ValueRecipe) and recipe.estimated is not None:
            errors["value"] = self._value_error(recipe, behaviours)
        if recipe.identity is not None:
            errors["identity"] = self._identity_error(recipe, recipe.identity)
        if recipe.name in FORMULAS:
            errors["formula"] = self._formula_error(recipe)
        return errors, undeclared

    def _expectation(
        self, recipe: Recipe, expectation: Expectation, case: Case, behaviours: tuple[str, ...]
    ) -> tuple[float, list[Gradient]]:
        """Error to the declared gradient (0 if it is biased), and the others that it equals."""
        case, inputs = _arguments(recipe, case)
        size = 2 if _compares(recipe) else 1
        mean = mean_gradient(recipe, case, inputs, size=size)
        exact = self.gradients(*behaviours, discount=case.sample.discount)
        declared = expectation.of_one_episode if expectation.consistent else expectation.gradient
        equal = [
            gradient
            for gradient in _distinct(behaviours, case.sample.discount)
            if gradient != declared and relative_error(mean, exact[gradient]) < EQUAL
        ]
        if expectation.gradient is None:
            return 0.0, equal
        if expectation.consistent:
            assert isinstance(recipe, ValueRecipe)
            mean = case.gradient(_population_estimate(recipe, case, inputs))
        factor = 1.0 if expectation.factor is None else expectation.factor(size)
        return relative_error(mean, factor * exact[expectation.gradient]), equal

    def _value_error(self, recipe: ValueRecipe, behaviours: tuple[str, ...]) -> float:
        """How far the estimate is from the value, in expectation or in the limit."""
        case = self.everything(*behaviours)
        estimate = _population_estimate(recipe, case, case.inputs(recipe.inputs))
        policy = {TARGET: "theta", BEHAVIOUR: case.behaviour}[recipe.estimated or TARGET]
        exact = self.problem.exact
        value = exact.value(exact.policy(self.problem.table(policy)))
        return relative_error(estimate, torch.tensor(value, dtype=torch.float64))

    def _identity_error(self, recipe: Recipe, identity: Identity) -> float:
        case = self.everything("theta") if identity.on_policy else self.batch
        case, inputs = _arguments(recipe, case)
        ours = recipe(case.sample, **inputs, **identity.knobs)
        theirs = identity.other(case.sample, **inputs)
        return relative_error(case.gradient(ours), case.gradient(theirs))

    def _formula_error(self, recipe: Recipe) -> float:
        case, inputs = _arguments(recipe, self.batch)
        loss = recipe(case.sample, **inputs, **KNOBS.get(recipe.name, {}))
        (ours,) = torch.autograd.grad(-loss, case.sample.log_prob_target, retain_graph=True)
        rows = FORMULAS[recipe.name](answers(case), case.sample.discount)
        theirs = torch.tensor([c for row in rows for c in row], dtype=torch.float64)
        outside = float(ours[~case.segments.inside].abs().sum())
        return max(relative_error(ours[case.segments.existing], theirs), outside)


def _compares(recipe: Recipe) -> bool:
    """Whether a recipe takes the returns of groups."""
    parameters = signature(recipe.function).parameters.values()
    return any(Grouped in get_args(parameter.annotation) for parameter in parameters)


def _arguments(recipe: Recipe, case: Case) -> tuple[Case, dict[str, Any]]:
    """The case as a recipe wants it, and what the recipe takes beside its sample."""
    if _compares(recipe):
        case = case.undiscounted()
        return case, {"advantages": case.grouped(2)}
    knobs = signature(recipe.function).parameters
    counts = {"episodes": case.counts} if "episodes" in knobs else {}
    return case, case.inputs(recipe.inputs) | counts


def _distinct(behaviours: tuple[str, ...], discount: float) -> list[Gradient]:
    """The gradients that differ: fewer where the behaviour is the target, or nothing discounted."""
    return [
        gradient
        for gradient in GRADIENTS
        if (gradient[:2] == (TARGET, TARGET) or "theta" not in behaviours)
        and (gradient.discounted or discount < 1)
    ]


def _population_estimate(recipe: ValueRecipe, case: Case, inputs: dict[str, Any]) -> Tensor:
    """The estimate from all trajectories, each counted by its probability: its limit in `N`."""
    terms = recipe.terms(case.sample, **inputs)
    plain = (terms.plain * case.probability).sum().expand(len(terms))
    weighted = None
    if terms.weighted is not None:
        values, log_weights, segments = terms.weighted
        counted = log_weights + segments.spread(case.probability.log())
        weighted = Weighted(values, counted, segments)
    return totals(replace(terms, plain=plain, weighted=weighted)).value
