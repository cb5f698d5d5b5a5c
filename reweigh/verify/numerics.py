"""Long products and extreme weights, beside values known to 30 digits."""

from typing import Any

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import diagnostics, returns, weights
from reweigh.core.segments import Segments
from reweigh.verify.golden import entry, number, tensor


def relative_error(value: Tensor, golden: Tensor) -> float:
    """`max |value - golden| / max(max |golden|, 0.001)`; infinite for a NaN or another shape."""
    if value.shape != golden.shape:
        return float("inf")
    error = (value.detach() - golden).abs().max() / golden.abs().max().clamp(min=1e-3)
    return float(error.nan_to_num(nan=float("inf")))


def numerics_errors(golden: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Errors by name, in the form of a row's."""
    errors: dict[str, dict[str, float]] = {}
    for i, case in enumerate(entry(golden, "prefix", list)):
        errors[f"prefix {i}"] = {"value": _prefix(case)}
    for i, case in enumerate(entry(golden, "returns", list)):
        errors[f"returns {i}"] = {"value": _returns(case)}
    for i, case in enumerate(entry(golden, "sn", list)):
        errors[f"self-normalised {i}"] = {"value": _self_normalised(case)}
    for i, case in enumerate(entry(golden, "khat", list)):
        errors[f"khat {i}"] = {"value": _pareto_k(case)}
    errors["spike"] = {"value": _spike(entry(golden, "spike", dict))}
    return errors


def random_dyadics(seed: int, count: int, *, shift: int, drift: int = 0) -> Tensor:
    """`count` numbers from a linear congruential generator, exact in float32."""
    integers = (_random_integers(seed, count) >> 8) - 2**23 + drift
    return integers.double() * 2.0 ** -(23 + shift)


def _random_integers(seed: int, count: int) -> Tensor:
    """`x_k = a x_{k-1} + c` modulo `2^32`, all at once: `a^k seed + c Σ_{i<k} a^i`."""
    powers = torch.full((count,), 1664525).cumprod(0)  # wraps modulo 2^64, a multiple
    sums = torch.cat([torch.ones(1, dtype=torch.int64), powers[:-1]]).cumsum(0)
    return (powers * seed + 1013904223 * sums) & (2**32 - 1)


def _prefix(case: dict[str, Any]) -> float:
    count = entry(case, "T", int)
    log_ratios = random_dyadics(
        entry(case, "lcg_seed", int),
        count,
        shift=entry(case, "shift", int),
        drift=entry(case, "drift", int),
    )
    prefix = weights.prefix(log_ratios, Segments.packed([count]))
    checkpoints = entry(case, "checkpoints", list)
    terms = torch.tensor([entry(point, "terms", int) for point in checkpoints])
    if not bool(((terms >= 1) & (terms <= count)).all()):
        raise ValueError(f"golden file: 'terms' must lie from 1 to 'T', which is {count}")
    # Not relative to the largest: an absolute error in the log is a relative one in the weight.
    golden = torch.tensor([number(p, "L") for p in checkpoints], dtype=torch.float64)
    return float((prefix[terms - 1] - golden).abs().max())


def _returns(case: dict[str, Any]) -> float:
    count, discount = entry(case, "T", int), number(case, "gamma")
    contracts.require_positive("golden file: 'T'", count)
    log_ratios = random_dyadics(
        entry(case, "lcg_seed_logratio", int), count, shift=entry(case, "shift", int)
    )
    rewards = random_dyadics(
        entry(case, "lcg_seed_reward", int), count, shift=entry(case, "reward_shift", int)
    )
    segments = Segments.packed([count])
    prefix = weights.prefix(log_ratios, segments)
    truncated = weights.truncate(prefix, segments, maximum=1.0).log_weights
    value = [
        returns.weighted_reward_to_go(rewards, log_weights, segments, discount=discount)[0]
        for log_weights in (prefix, truncated)
    ]
    golden = [number(case, key) for key in ("sum", "sum_trunc1")]
    return relative_error(torch.stack(value), torch.tensor(golden, dtype=torch.float64))


def _self_normalised(case: dict[str, Any]) -> float:
    log_weights = tensor(case, "logw", -1)
    count = len(log_weights)
    segments = Segments.packed([1] * count)
    limit = number(case, "truncate_at")
    log_sum = weights.log_sum_by_time(log_weights, segments)
    truncated = weights.truncate(log_weights, segments, maximum=limit).log_weights.exp()
    scalars = torch.stack([log_sum[0], diagnostics.effective_sample_size(log_weights)])
    golden = [number(case, key) for key in ("logsumexp", "ess")]
    normalised = weights.self_normalise(log_weights, segments).exp() / count
    return max(
        relative_error(scalars, torch.tensor(golden, dtype=torch.float64)),
        relative_error(normalised, tensor(case, "weights", count)),
        relative_error(truncated, tensor(case, "truncated", count)),
    )


def _pareto_k(case: dict[str, Any]) -> float:
    count = entry(case, "S", int)
    uniform = (_random_integers(entry(case, "lcg_seed", int), count).double() + 0.5) / 2**32
    found = weights.pareto_k(-number(case, "true_k") * uniform.log())
    return relative_error(found, torch.tensor(number(case, "khat"), dtype=torch.float64))


def _spike(case: dict[str, Any]) -> float:
    log_ratios = tensor(case, "log_ratio", -1)
    segments = Segments.packed([len(log_ratios)])
    prefix = weights.prefix(log_ratios, segments)
    truncated = weights.truncate(prefix, segments, maximum=2.0).log_weights.exp()
    return max(
        relative_error(prefix, tensor(case, "L", len(log_ratios))),
        relative_error(truncated, tensor(case, "w_trunc2", len(log_ratios))),
    )
