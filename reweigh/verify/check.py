"""The rows of a verification: every estimator of a golden file, and how far the library is off.

Batches are padded and poisoned, and gradients come from automatic differentiation through softmax
logits. An expectation is the sum over every trajectory that the problem has, each with its exact
probability; where the episodes of a batch depend on each other, the sum over every batch of one
and, on small problems, of two.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reweigh.core import diagnostics, weights
from reweigh.core.reduce import loss
from reweigh.core.segments import Segments
from reweigh.verify.estimators import ESTIMATORS, Estimator
from reweigh.verify.golden import Problem, entry, number, tensor
from reweigh.verify.numerics import numerics_errors, relative_error
from reweigh.verify.samples import Sample, enumerated, logged, logged_mixture

TOLERANCE = 1e-9
"""Largest relative error that passes."""

PAIRS_UP_TO = 200
"""Batches of two are enumerated on problems with at most this many trajectories."""


@dataclass(frozen=True)
class Row:
    """One estimator on one problem.

    Errors are relative: the largest difference over the largest golden magnitude of the same array
    (over 0.001, where all magnitudes are smaller).
    """

    problem: str
    estimator: str
    errors: dict[str, float]
    """By quantity: value, gradient, coefficients, expectation. Empty if it is not built."""
    target: str
    """What the estimator is unbiased for."""

    @property
    def built(self) -> bool:
        """Whether the library has this estimator."""
        return bool(self.errors)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance (also of what is not built)."""
        return all(error <= TOLERANCE for error in self.errors.values())


class _Everything(NamedTuple):
    """All trajectories of a problem, and the probability `[N]` of each."""

    sample: Sample
    probability: Tensor


class _Group(NamedTuple):
    """Estimators that see the same batch."""

    results: dict[str, Any]
    """What each gives on the batch."""
    expectations: dict[str, Any]
    """The expectation of each; by batch size, where it depends on that."""
    batch: Sample
    everything: _Everything


def verify(golden: dict[str, Any]) -> list[Row]:
    """Runs every estimator that the golden file names and the library has.

    Args:
        golden: From `load`.

    Returns:
        A row for every name in the file, those not built included.

    Raises:
        ValueError: The file is not of the golden format; says which entry.
    """
    rows: list[Row] = []
    for file in entry(golden, "problems", list):
        problem = Problem.read(file)
        for group in _groups(problem, file):
            rows += [_estimator_row(problem, group, name) for name in group.results]
        rows.append(_diagnostics_row(problem, file))
    numerics = numerics_errors(entry(golden, "numerics", dict))
    return rows + [Row("numerics", name, errors, "") for name, errors in numerics.items()]


def _groups(problem: Problem, file: dict[str, Any]) -> list[_Group]:
    batch, cut = entry(file, "batch", dict), entry(file, "trunc_batch", dict)
    exact, horizon = entry(file, "exact", dict), entry(cut, "h", int)
    alone = torch.ones(1, dtype=torch.float64)
    groups = [
        _Group(
            entry(file, "batch_results", dict),
            entry(exact, "E", dict)
            | entry(exact, "E_sn", dict)
            | {"pdis_tokenmean": entry(exact, "E_pdis_tokenmean", dict)},
            logged(problem, batch, horizon=problem.horizon),
            _Everything(*enumerated(problem, ["phi"], alone, horizon=problem.horizon)),
        ),
        _Group(
            entry(cut, "results", dict) | {"pdis_boot_phi": {}},
            entry(exact, "E_trunc", dict),
            logged(problem, batch, horizon=horizon),
            _Everything(*enumerated(problem, ["phi"], alone, horizon=horizon)),
        ),
    ]
    for key in ("mix_batch", "def_batch"):
        mixed = entry(file, key, dict)
        counts = tensor(mixed, "counts", -1)
        sources = entry(mixed, "sources", list)
        if unknown := set(sources) - set(problem.logits):
            raise ValueError(f"golden file: {key!r} names sources that are no policy: {unknown}")
        proportions = counts / counts.sum()
        everything = _Everything(
            *enumerated(problem, sources, proportions, horizon=problem.horizon)
        )
        power_mean = _power_means(mixed, everything, counts)
        groups.append(
            _Group(
                entry(mixed, "results", dict),
                entry(exact, "E_mix", dict),
                replace(logged_mixture(problem, mixed), power_mean=power_mean),
                everything._replace(sample=replace(everything.sample, power_mean=power_mean)),
            )
        )
    return groups


def _power_means(
    mixed: dict[str, Any], everything: _Everything, counts: Tensor
) -> dict[str, weights.PowerMean]:
    """The parameters that the file gives, if it does, and the paper's, from exact moments."""
    if "pm_lambda" not in mixed:
        return {}
    sample, probability = everything
    log_ratios = sample.log_ratios.detach()
    moments = torch.zeros_like(sample.proportions).index_add(
        0, sample.source, probability * (2 * sample.segments.total(log_ratios)).exp()
    )
    return {
        "given": weights.PowerMean(
            tensor(mixed, "pm_lambda", len(counts)), tensor(mixed, "pm_alpha", len(counts))
        ),
        "paper": weights.power_mean_parameters(
            moments / sample.proportions, [int(count) for count in counts]
        ),
    }


def _estimator_row(problem: Problem, group: _Group, name: str) -> Row:
    if name not in ESTIMATORS:
        return Row(problem.name, name, {}, "")
    estimator = ESTIMATORS[name]
    errors = _batch_errors(problem, estimator, group.batch, entry(group.results, name, dict))
    errors["expectation"] = _expectation_error(problem, estimator, group, name)
    return Row(problem.name, name, errors, estimator.target)


def _batch_errors(
    problem: Problem, estimator: Estimator, sample: Sample, result: dict[str, Any]
) -> dict[str, float]:
    """Errors of the loss, its gradient and the coefficients of the scores, on the batch."""
    theta, segments = problem.logits["theta"], sample.segments
    objective = estimator.objective(sample)
    value = loss(objective, segments, divisor=estimator.divisor(segments))
    errors = {}
    if "loss" in result:
        # The file's `loss` is linear in log π; a clipped ratio is not, and has its own.
        golden = number(result, "ppo_loss" if "ppo_loss" in result else "loss")
        errors["value"] = relative_error(value, torch.tensor(golden, dtype=torch.float64))
    if "grad" in result:
        ascent = -torch.autograd.grad(value, theta, retain_graph=True)[0]
        errors["gradient"] = relative_error(ascent, tensor(result, "grad", *theta.shape))
    if "coef" in result:
        (coefficients,) = torch.autograd.grad(objective.sum(), sample.log_prob, retain_graph=True)
        golden = tensor(result, "coef", len(segments), -1).flatten()
        errors["coefficients"] = relative_error(coefficients, golden)
    return errors


def _expectation_error(problem: Problem, estimator: Estimator, group: _Group, name: str) -> float:
    theta, everything = problem.logits["theta"], group.everything
    if not estimator.whole_batch:
        golden = tensor(group.expectations, name, *theta.shape)
        return relative_error(_expectation(estimator, everything, theta), golden)
    by_size = entry(group.expectations, name, dict)
    sizes = (1, 2) if len(everything.probability) <= PAIRS_UP_TO else (1,)
    return max(
        relative_error(
            _expectation_of_batches(estimator, everything, theta, size),
            tensor(by_size, str(size), *theta.shape),
        )
        for size in sizes
    )


def _expectation(estimator: Estimator, everything: _Everything, theta: Tensor) -> Tensor:
    """`Σ_τ p(τ) ĝ(τ)`: all trajectories as one batch, each counted by its probability."""
    sample, probability = everything
    objective = estimator.objective(sample) * sample.segments.spread(probability)
    mean = loss(objective, sample.segments, divisor=1)
    return -torch.autograd.grad(mean, theta, retain_graph=True)[0]


def _expectation_of_batches(
    estimator: Estimator, everything: _Everything, theta: Tensor, size: int
) -> Tensor:
    """`Σ p(batch) ĝ(batch)` over every batch of `size` independent trajectories."""
    sample, probability = everything
    lengths = sample.segments.lengths
    mean = torch.zeros((), dtype=torch.float64)
    # Batches whose episodes have the same lengths share their segments, and run as one.
    for shape in itertools.product(lengths.unique().tolist(), repeat=size):
        choices = [(lengths == length).nonzero().squeeze(1) for length in shape]
        members = torch.cartesian_prod(*choices).reshape(-1, size)
        steps = torch.cat(
            [
                sample.segments.start[episode].unsqueeze(1) + torch.arange(length)
                for episode, length in zip(members.T, shape, strict=True)
            ],
            dim=1,
        )
        segments = Segments.packed(shape)

        def batch_loss(log_prob, log_ratios, rewards, segments=segments):
            batch = replace(
                sample,
                segments=segments,
                log_prob=log_prob,
                log_ratios=log_ratios,
                rewards=rewards,
            )
            return loss(estimator.objective(batch), segments, divisor=estimator.divisor(segments))

        losses = torch.vmap(batch_loss)(
            sample.log_prob[steps], sample.log_ratios[steps], sample.rewards[steps]
        )
        mean = mean + (probability[members].prod(1) * losses).sum()
    return -torch.autograd.grad(mean, theta, retain_graph=True)[0]


def _diagnostics_row(problem: Problem, file: dict[str, Any]) -> Row:
    batch, golden = entry(file, "batch", dict), entry(file, "diagnostics", dict)
    sample = logged(problem, batch, horizon=problem.horizon)
    prefix = weights.prefix(sample.log_ratios, sample.segments)
    whole = sample.segments.total(sample.log_ratios)
    scalars = torch.stack([diagnostics.effective_sample_size(whole), whole.exp().max()])
    expected = [number(golden, key) for key in ("ess_traj", "max_w_traj")]
    error = max(
        relative_error(
            diagnostics.ess_by_time(prefix, sample.segments),
            tensor(golden, "ess_step", problem.horizon),
        ),
        relative_error(whole, tensor(golden, "log_w_traj", len(whole))),
        relative_error(scalars, torch.tensor(expected, dtype=torch.float64)),
    )
    return Row(problem.name, "diagnostics", {"value": error}, "")
