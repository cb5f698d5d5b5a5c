"""Recipes beside what they declare: an expectation, an identity, the published formula.

A recipe's expectation is the sum over every trajectory that a problem has, each with its exact
probability (over every pair of them, for recipes that compare episodes). What it must be comes from
dynamic programming in NumPy (`problem.py`), from the published formula in loops (`formulas.py`), or
from another recipe; and it must be no other of the eight gradients.
"""

from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from reweigh.core.terms import Weighted, totals
from reweigh.recipes import Grouped
from reweigh.recipes.expectation import BEHAVIOUR, TARGET, Expectation, Gradient, Identity
from reweigh.recipes.recipe import Recipe, ValueRecipe
from reweigh.verify.answers import answers
from reweigh.verify.batches import mean_gradient
from reweigh.verify.cases import Case, slope
from reweigh.verify.formulas import FORMULAS, OF_MANY, knobs
from reweigh.verify.golden import Problem, entry, tensor
from reweigh.verify.numerics import relative_error
from reweigh.verify.trajectories import enumerated, logged

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


CRITICS = {"values", "action_values", "all_action_values"}
"""Inputs that a wrong critic changes."""


class Outcome(NamedTuple):
    """What a problem shows about a recipe."""

    errors: dict[str, float]
    """By quantity: to what it declares."""
    none_of: dict[str, int]
    """By quantity that is declared biased: how many gradients it was compared with."""
    undeclared: list[str]
    """What it equals without declaring it."""


class Trial:
    """A problem on which recipes are tried."""

    def __init__(self, problem: Problem, file: dict[str, Any]):
        self.problem = problem
        self.batch = logged(problem, entry(file, "batch", dict), horizon=problem.horizon)
        mixed = entry(file, "mix_batch", dict)
        self.sources = tuple(problem.sources(mixed))
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

    def outcome(self, recipe: Recipe) -> Outcome:
        """What the problem shows about a recipe."""
        outcome = Outcome({}, {}, [])
        behaviours = self.sources if "log_prob_sources" in recipe.inputs else ("phi",)
        targets = ("theta",) * len(behaviours)
        for quantity, expectation, sampled_by in (
            ("expectation", recipe.expectation, behaviours),
            ("on-policy", recipe.on_policy, targets),
        ):
            case = self.everything(*sampled_by)
            if _compares(recipe) and len(case.sample) > PAIRS_UP_TO:
                continue
            self._compare(recipe, quantity, expectation, case, sampled_by, outcome)
        if isinstance(recipe, ValueRecipe):
            policies = [behaviours] if recipe.estimated else []
            policies += [targets] if recipe.on_policy.gradient else []
            errors = [self._value_error(recipe, sampled_by) for sampled_by in policies]
            outcome.errors.update({"value": max(errors)} if errors else {})
        if recipe.identity is not None:
            outcome.errors["identity"] = self._identity_error(recipe, recipe.identity)
        if (case := self._formula_case(recipe)) is not None:
            outcome.errors["formula"] = _formula_error(recipe, case)
        return outcome

    def _compare(
        self,
        recipe: Recipe,
        quantity: str,
        expectation: Expectation,
        case: Case,
        behaviours: tuple[str, ...],
        outcome: Outcome,
    ) -> None:
        """Adds to the outcome what the expectation is beside the declared one and the others."""
        exact = self.gradients(*behaviours, discount=_arguments(recipe, case)[0].sample.discount)
        others = _distinct(behaviours, case.sample.discount if not _compares(recipe) else 1.0)
        mean, limit = _mean_and_limit(recipe, case)
        declared = expectation.of_one_episode if expectation.consistent else expectation.gradient
        equal = [g for g in others if g != declared and relative_error(mean, exact[g]) < EQUAL]
        if expectation.gradient is None:
            equal += [
                g for g in others if g not in equal and relative_error(limit, exact[g]) < EQUAL
            ]
            outcome.none_of[quantity] = len(others)
        else:
            factor = 1.0 if expectation.factor is None else expectation.factor(2)
            golden = factor * exact[expectation.gradient]
            reached = limit if expectation.consistent else mean
            outcome.errors[quantity] = relative_error(reached, golden)
            if CRITICS & set(recipe.inputs):
                mean, limit = _mean_and_limit(recipe, replace(case, critic="critic"))
                error = relative_error(limit if expectation.consistent else mean, golden)
                if expectation.any_critic:
                    outcome.errors[quantity] = max(outcome.errors[quantity], error)
                elif error < EQUAL:
                    outcome.undeclared.append(f"{quantity} holds for every critic")
        outcome.undeclared.extend(f"{quantity} equals {gradient}" for gradient in equal)

    def _value_error(self, recipe: ValueRecipe, behaviours: tuple[str, ...]) -> float:
        """How far the estimate is from the value, in expectation or in the limit."""
        case = self.everything(*behaviours)
        estimate = _population_estimate(recipe, case)
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

    def _formula_case(self, recipe: Recipe) -> Case | None:
        """Episodes to hold a recipe to its published formula on, if there is one."""
        if recipe.name not in FORMULAS:
            return None
        if recipe.name not in OF_MANY:
            return self.batch
        case = self.everything("phi")
        return case if len(case.sample) <= PAIRS_UP_TO else None


def _formula_error(recipe: Recipe, case: Case) -> float:
    case, inputs = _arguments(recipe, case)
    return max(_error_to(recipe, case, inputs, given) for given in knobs(recipe.name, case))


def _error_to(recipe: Recipe, case: Case, inputs: dict[str, Any], given: dict[str, Any]) -> float:
    """The largest error of the coefficients that the formula has with these knobs."""
    ours = slope(-recipe(case.sample, **inputs, **given), case.sample.log_prob_target)
    rows = FORMULAS[recipe.name](answers(case), case.sample.discount, **given)
    theirs = torch.tensor([c for row in rows for c in row], dtype=torch.float64)
    outside = float(ours[~case.segments.inside].abs().sum())
    return max(relative_error(ours[case.segments.existing], theirs), outside)


def _mean_and_limit(recipe: Recipe, case: Case) -> tuple[Tensor, Tensor]:
    """The expectation of a recipe's gradient, and the gradient of a value's limit in `N`."""
    case, inputs = _arguments(recipe, case)
    mean = mean_gradient(recipe, case, inputs, size=2 if _compares(recipe) else 1)
    if not isinstance(recipe, ValueRecipe):
        return mean, mean
    return mean, case.gradient(_population_estimate(recipe, case))


def _compares(recipe: Recipe) -> bool:
    """Whether a recipe takes the returns of groups."""
    parameters = signature(recipe.function).parameters.values()
    return any(Grouped in get_args(parameter.annotation) for parameter in parameters)


def _arguments(recipe: Recipe, case: Case) -> tuple[Case, dict[str, Any]]:
    """The case as a recipe wants it, and what the recipe takes beside its sample."""
    if _compares(recipe):
        case = case.undiscounted()
        return case, {"advantages": case.grouped(2)}
    parameters = signature(recipe.function).parameters
    counts = {"episodes": case.counts} if "episodes" in parameters else {}
    return case, case.inputs(recipe.inputs) | counts


def _distinct(behaviours: tuple[str, ...], discount: float) -> list[Gradient]:
    """The gradients that differ: fewer where the behaviour is the target, or nothing discounted."""
    return [
        gradient
        for gradient in GRADIENTS
        if (gradient[:2] == (TARGET, TARGET) or "theta" not in behaviours)
        and (gradient.discounted or discount < 1)
    ]


def _population_estimate(recipe: ValueRecipe, case: Case) -> Tensor:
    """The estimate from all trajectories, each counted by its probability: its limit in `N`."""
    terms = recipe.terms(case.sample, **case.inputs(recipe.inputs), **knobs(recipe.name, case)[0])
    plain = (terms.plain * case.probability).sum().expand(len(terms))
    weighted = None
    if terms.weighted is not None:
        values, log_weights, segments = terms.weighted
        counted = log_weights + segments.spread(case.probability.log())
        weighted = Weighted(values, counted, segments)
    return totals(replace(terms, plain=plain, weighted=weighted)).value
