"""The rows of a verification: every recipe beside what it declares, the golden numbers beside ours.

Golden batches are padded and poisoned, and gradients come from automatic differentiation through
softmax logits.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reweigh.core import diagnostics, weights
from reweigh.core.reduce import count_steps
from reweigh.core.sample import Sample
from reweigh.recipes import ALL, truncated
from reweigh.recipes.expectation import Gradient
from reweigh.recipes.recipe import Recipe
from reweigh.verify.batches import mean_gradient
from reweigh.verify.cases import Case, slope
from reweigh.verify.declared import PAIRS_UP_TO, Trial
from reweigh.verify.golden import Problem, entry, number, tensor
from reweigh.verify.golden_estimators import ESTIMATORS, Estimator
from reweigh.verify.numerics import numerics_errors, relative_error
from reweigh.verify.trajectories import enumerated, logged, logged_mixture
from reweigh.verify.wrong import WRONG

TOLERANCE = 1e-9
"""Largest relative error that passes."""

WRONGLY_DECLARED = "wrong declarations"
"""What rows have for a problem that show whether the checks can fail at all."""


@dataclass(frozen=True)
class Row:
    """One estimator on one problem.

    Errors are relative: the largest difference over the largest magnitude of the array that it
    should be (over 0.001, where all magnitudes are smaller).
    """

    problem: str
    estimator: str
    errors: dict[str, float]
    """By quantity: value, gradient, coefficients, expectation, on-policy, identity, formula. Empty
    if the library does not have the estimator."""
    declared: str
    """What its expectation is said to be."""
    undeclared: tuple[str, ...] = ()
    """What its expectation equals without being declared so."""
    none_of: dict[str, int] = field(default_factory=dict)
    """By quantity that is declared biased: how many gradients it was compared with."""
    is_recipe: bool = False
    """A public recipe; otherwise a name of the golden file."""

    @property
    def built(self) -> bool:
        """Whether the library has this estimator."""
        return bool(self.errors or self.none_of)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance, and what is declared is all that holds."""
        return not self.undeclared and all(e <= TOLERANCE for e in self.errors.values())


def verify(golden: dict[str, Any], recipes: dict[str, Recipe] | None = None) -> list[Row]:
    """Holds every recipe to what it declares, and the golden file's estimators to its numbers.

    Args:
        golden: From `load`.
        recipes: By name; without it all that are published, `recipes.ALL`, and one truncated.

    Returns:
        A row for every recipe and for every name in the file, on each problem; and for every wrong
        declaration (`WRONG`), which passes if it was refused.

    Raises:
        ValueError: The file is not of the golden format (says which entry); a recipe asks for an
            input that cannot be made.
    """
    rows: list[Row] = []
    bounded = truncated(ALL["per_decision"], maximum=1.5)
    recipes = {**ALL, bounded.name: bounded} if recipes is None else recipes
    for file in entry(golden, "problems", list):
        problem = Problem.read(file)
        trial = Trial(problem, file)
        if not rows:
            rows += [_refusal_row(trial, name, recipe) for name, recipe in WRONG.items()]
        for name, recipe in recipes.items():
            rows.append(_recipe_row(trial, name, recipe))
        for group in _groups(trial, file):
            rows += [_estimator_row(trial, group, name) for name in group.results]
        rows.append(_diagnostics_row(problem, file))
    numerics = numerics_errors(entry(golden, "numerics", dict))
    return rows + [Row("numerics", name, errors, "") for name, errors in numerics.items()]


def _recipe_row(trial: Trial, name: str, recipe: Recipe) -> Row:
    errors, none_of, undeclared = trial.outcome(recipe)
    return Row(
        trial.problem.name,
        name,
        errors,
        str(recipe.expectation),
        tuple(undeclared),
        none_of,
        is_recipe=True,
    )


def _refusal_row(trial: Trial, name: str, recipe: Recipe) -> Row:
    # Said twice, so that it fails whichever of the two a row no longer looks at.
    if _recipe_row(trial, name, recipe).passed:
        return Row(WRONGLY_DECLARED, name, {"refused": float("inf")}, "refused", ("accepted",))
    return Row(WRONGLY_DECLARED, name, {"refused": 0.0}, "refused")


class _Group(NamedTuple):
    """Estimators of the file that see the same batch."""

    results: dict[str, Any]
    """What each gives on the batch."""
    expectations: dict[str, Any]
    """The expectation of each; by batch size, where it depends on that."""
    batch: Case
    everything: Case


def _groups(trial: Trial, file: dict[str, Any]) -> list[_Group]:
    problem = trial.problem
    batch, cut = entry(file, "batch", dict), entry(file, "trunc_batch", dict)
    exact, horizon = entry(file, "exact", dict), entry(cut, "h", int)
    groups = [
        _Group(
            entry(file, "batch_results", dict),
            entry(exact, "E", dict)
            | entry(exact, "E_sn", dict)
            | {"pdis_tokenmean": entry(exact, "E_pdis_tokenmean", dict)},
            trial.batch,
            trial.everything("phi"),
        ),
        _Group(
            entry(cut, "results", dict) | {"pdis_boot_phi": {}},
            entry(exact, "E_trunc", dict),
            logged(problem, batch, horizon=horizon),
            enumerated(problem, ["phi"], horizon=horizon),
        ),
    ]
    for key in ("mix_batch", "def_batch"):
        mixed = entry(file, key, dict)
        sources = problem.sources(mixed)
        batch = logged_mixture(problem, mixed)
        everything = enumerated(problem, sources, batch.counts)
        batch = replace(batch, second_moments=everything.second_moments)
        if "pm_lambda" in mixed:
            given = weights.PowerMean(
                *(tensor(mixed, name, len(sources)) for name in ("pm_lambda", "pm_alpha"))
            )
            batch, everything = (replace(case, power_mean=given) for case in (batch, everything))
        results = entry(mixed, "results", dict)
        groups.append(_Group(results, entry(exact, "E_mix", dict), batch, everything))
    return groups


def _estimator_row(trial: Trial, group: _Group, name: str) -> Row:
    problem = trial.problem
    if name not in ESTIMATORS:
        return Row(problem.name, name, {}, "")
    estimator = ESTIMATORS[name]
    batch, everything = (
        replace(c, critic=estimator.critic) for c in (group.batch, group.everything)
    )
    errors = _batch_errors(problem, estimator, batch, entry(group.results, name, dict))
    if estimator.whole_batch:
        golden = entry(group.expectations, name, dict)
        errors["expectation"] = _error_by_size(estimator, everything, golden)
    else:
        mean = _expectation(estimator, everything)
        errors["expectation"] = relative_error(mean, tensor(group.expectations, name, *mean.shape))
        if isinstance(estimator.declared, Gradient):
            # The gradients of mixtures are those of θ alone, which no behaviour changes.
            exact = trial.gradients("phi", discount=problem.discount)[estimator.declared]
            errors["expectation"] = max(errors["expectation"], relative_error(mean, exact))
    return Row(problem.name, name, errors, str(estimator.declared))


def _batch_errors(
    problem: Problem, estimator: Estimator, case: Case, result: dict[str, Any]
) -> dict[str, float]:
    """Errors of the loss, its gradient and the coefficients of the scores, on the batch."""
    theta, errors = problem.logits["theta"], {}
    objective = estimator.objective(case).sum()
    divisor = _divisor(estimator, case.sample)
    target = case.sample.log_prob_target
    coefficients, of_values = (slope(objective, leaf) for leaf in (target, case.values))
    if "loss" in result and "ppo_loss" not in result:
        # The file's loss is linear: the sum of the coefficients times what they multiply.
        linear = (coefficients * case.segments.fill(target)).sum()
        linear = linear + (of_values * case.values).sum()
        errors["value"] = relative_error(-linear / divisor, _scalar(number(result, "loss")))
    elif "ppo_loss" in result:
        errors["value"] = relative_error(-objective / divisor, _scalar(number(result, "ppo_loss")))
    if "grad" in result:
        ascent = slope(objective / divisor, theta)
        errors["gradient"] = relative_error(ascent, tensor(result, "grad", *theta.shape))
    if "coef" in result:
        golden = tensor(result, "coef", len(case.sample), -1).flatten()
        errors["coefficients"] = relative_error(coefficients, golden)
    return errors


def _expectation(estimator: Estimator, everything: Case) -> Tensor:
    """Of the gradient, over every trajectory."""
    objective = estimator.objective(everything)
    if len(objective) != len(everything.sample):
        objective = everything.segments.total(objective)
    return everything.gradient((objective * everything.probability).sum())


def _error_by_size(estimator: Estimator, everything: Case, golden: dict[str, Any]) -> float:
    """Error of the expectation over batches of one trajectory, and of two."""

    def loss(sample: Sample) -> Tensor:
        objective = estimator.objective(replace(everything, sample=sample))
        return -objective.sum() / _divisor(estimator, sample)

    shape = everything.problem.logits["theta"].shape
    return max(
        relative_error(
            mean_gradient(loss, everything, {}, size=size), tensor(golden, str(size), *shape)
        )
        for size in ((1, 2) if len(everything.sample) <= PAIRS_UP_TO else (1,))
    )


def _divisor(estimator: Estimator, sample: Sample) -> float | Tensor:
    return count_steps(sample.segments) if estimator.by_tokens else len(sample)


def _scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def _diagnostics_row(problem: Problem, file: dict[str, Any]) -> Row:
    batch, golden = entry(file, "batch", dict), entry(file, "diagnostics", dict)
    sample = logged(problem, batch, horizon=problem.horizon).sample
    whole = sample.log_trajectory.detach()
    reading = diagnostics.read(diagnostics.weight_health(whole)).total
    expected = [number(golden, key) for key in ("ess_traj", "max_w_traj")]
    ours = [reading.effective_sample_size, reading.maximum]
    by_time = diagnostics.ess_by_time(sample.log_prefix.detach(), sample.segments)
    error = max(
        relative_error(by_time, tensor(golden, "ess_step", problem.horizon)),
        relative_error(whole, tensor(golden, "log_w_traj", len(whole))),
        relative_error(
            torch.tensor(ours, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
        ),
    )
    return Row(problem.name, "diagnostics", {"value": error}, "")
