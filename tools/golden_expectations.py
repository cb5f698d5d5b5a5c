"""Exact expectations: sums over all trajectories, and over all batches of two and three."""

from typing import Any

import numpy as np
from golden_estimators import (
    Exact,
    Mixture,
    PowerMean,
    coefficients,
    cut_coefficients,
    doubly_robust,
    doubly_robust_gradients,
    mixture_coefficients,
    normalised_parts,
    prefix,
)
from golden_process import Array, Paths, Process

Entry = dict[str, Any]


def gradients_by_name(x: Paths, ratios: Array, exact: Exact) -> dict[str, Array]:
    """`[N, S, A]` of every estimator whose trajectories do not depend on each other."""
    policy = exact.policies["theta"]
    named = {name: x.gradients(c, policy) for name, c in coefficients(x, ratios, exact).items()}
    named["dr_exactQ"] = doubly_robust(x, ratios, exact, "theta").gradients
    named["dr_misQ"] = doubly_robust(x, ratios, exact, "Qhat").gradients
    named["dr_full"] = doubly_robust_gradients(x, ratios, exact)
    return named


def moments(probability: Array, gradients: Array) -> tuple[Array, float]:
    """Mean `[S, A]` and trace of the covariance."""
    mean = np.tensordot(probability, gradients, 1)
    return mean, float(probability @ ((gradients - mean) ** 2).sum((1, 2)))


def probability_of(x: Paths, environment: Array, policy: Array) -> Array:
    """`[N]`: of each trajectory."""
    probability = environment.copy()
    for t in range(x.mask.shape[1]):
        probability = probability * x.chances(policy)[:, t]
    return probability


def second_moment(x: Paths, environment: Array, exact: Exact, behaviour: str) -> float:
    """`E[W^2]` to a behaviour."""
    chances = x.chances(exact.policies[behaviour])
    w = prefix(x.chances(exact.policies["theta"]) / chances)[:, -1]
    return float(probability_of(x, environment, exact.policies[behaviour]) @ w**2)


def expectations(x: Paths, environment: Array, exact: Exact) -> Entry:
    """Sums over all trajectories, and over all batches of two and three."""
    ratios = x.chances(exact.policies["theta"]) / x.chances(exact.policies["phi"])
    probability = probability_of(x, environment, exact.policies["phi"])
    entry: Entry = {"n_trajectories": len(probability), "E": {}, "var_trace": {}}
    for name, gradients in gradients_by_name(x, ratios, exact).items():
        entry["E"][name], entry["var_trace"][name] = moments(probability, gradients)
    entry["E_sn"] = {}
    for name, parts in normalised_parts(x, ratios, exact).items():
        sizes = (1, 2) if name == "pdis_tokenmean" else (1, 2, 3)
        sums: Entry = {str(n): 0.0 for n in sizes} | {"inf": 0.0}
        for weights, terms in parts:
            made = terms()
            for n in sizes:
                sums[str(n)] = sums[str(n)] + normalised_mean(probability, weights, made, n)
            mean = np.tensordot(probability * weights, made, 1)
            sums["inf"] = sums["inf"] + mean / (probability @ weights)
        entry["E_sn"][name] = sums
    entry["E_pdis_tokenmean"] = entry["E_sn"].pop("pdis_tokenmean")
    return entry


def normalised_mean(probability: Array, weights: Array, terms: Array, size: int) -> Array:
    """`E[sum_i u_i x_i / sum_j u_j]` over `size` independent trajectories.

    Trajectories of the same weight differ in nothing but their term, so that the sum over all
    batches is one over the distinct weights.
    """
    # Equal weights differ by rounding, as their factors are multiplied in another order.
    keys = np.array([float(f"{u:.10g}") for u in weights])
    distinct, group = np.unique(keys, return_inverse=True)
    count = len(distinct)
    chance, weight = np.zeros(count), np.zeros(count)
    mean = np.zeros((count, *terms.shape[1:]))
    np.add.at(chance, group, probability)
    weight[group] = weights
    np.add.at(mean, group, probability[:, None, None] * terms)
    others, chance_of_others = np.zeros(1), np.ones(1)
    for _ in range(size - 1):
        others = np.add.outer(others, weight).ravel()
        chance_of_others = np.multiply.outer(chance_of_others, chance).ravel()
    total = np.zeros(terms.shape[1:])
    for u, x in zip(weight, mean, strict=True):
        if u > 0:
            total += size * u * x * (chance_of_others / (u + others)).sum()
    return total


def mixture_of(given: Entry, second_moments: Entry) -> Mixture:
    """The behaviours of a batch; the paper's shares from the exact second moments."""
    names, counts = given["sources"], np.array(given["counts"])
    if "pm_lambda" not in given:
        return Mixture(names, counts)
    moments = np.array([second_moments[name] for name in names])
    share = np.minimum(1.0, np.sqrt(4 * np.log(1 / 0.2) / (3 * counts.sum() * moments)))
    proportion = moments**-0.5 / (moments**-0.5).sum()
    return Mixture(
        names,
        counts,
        PowerMean(np.array(given["pm_lambda"]), np.array(given["pm_alpha"])),
        PowerMean(share, proportion),
    )


def mixture_expectations(
    given: Entry, x: Paths, environment: Array, exact: Exact, second_moments: Entry
) -> Entry:
    """Mean of the stratified estimate, and N times its variance."""
    means: Entry = {}
    variances: Entry = {}
    for key in ("mix_batch", "def_batch"):
        mixture = mixture_of(given[key], second_moments)
        for j, (name, count) in enumerate(zip(mixture.names, mixture.counts, strict=True)):
            fraction = count / mixture.counts.sum()
            probability = probability_of(x, environment, exact.policies[name])
            source = np.full(len(environment), j)
            for title, c in mixture_coefficients(x, source, mixture, exact).items():
                gradients = x.gradients(c, exact.policies["theta"])
                mean, variance = moments(probability, gradients)
                means[title] = means.get(title, 0.0) + fraction * mean
                variances[title] = variances.get(title, 0.0) + fraction * variance
    return {"E_mix": means, "N_var_trace_mix": variances}


def truncated_expectations(exact: Exact) -> Entry:
    """Episodes cut after H - 1 steps, with and without a value at the cut."""
    process, policy = exact.process, exact.policies["theta"]
    h, gamma = process.horizon - 1, process.discount
    x, environment = process.everything(h)
    ratios = x.chances(policy) / x.chances(exact.policies["phi"])
    probability = probability_of(x, environment, exact.policies["phi"])
    entry: Entry = {"h": h}
    for name, v in {"cut": None, "boot_theta": "theta", "boot_phi": "phi"}.items():
        c = cut_coefficients(x, ratios, exact, v)
        entry[f"pdis_{name}"], _ = moments(probability, x.gradients(c, policy))
    shorter = Process(h, gamma, process.first, process.moves, process.rewards, process.terminal)
    _, dv = shorter.value_gradients(policy)
    entry["target_grad_J_h"] = np.einsum("s,sxa->xa", process.first, dv[0])
    entry["target_partial_sum_fullQ"] = process.policy_gradient(
        policy, exact.occupancy["theta"][:h], exact.q["theta"]
    )
    return entry
