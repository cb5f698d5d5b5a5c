"""Long products and extreme weights, exact or to 30 digits, in Python's integers and decimals."""

from decimal import Context, Decimal
from typing import Any

import numpy as np

Entry = dict[str, Any]
EXACT = Context(prec=100)
DIGITS = Context(prec=30)
WORKING = Context(prec=60)


def numerics_entry(given: Entry) -> Entry:
    """The section `numerics`, of which `given` has the parameters."""
    return {
        "prefix": [prefix_entry(case) for case in given["prefix"]],
        "returns": [returns_entry(case) for case in given["returns"]],
        "sn": [normalised_entry(case) for case in given["sn"]],
        "spike": spike_entry(given["spike"]),
        "khat": [case | {"khat": khat(case)} for case in given["khat"]],
    }


def integers(seed: int, count: int) -> list[int]:
    """Outputs of the linear congruential generator, the first after one step."""
    x, outputs = seed, []
    for _ in range(count):
        x = (1664525 * x + 1013904223) % 2**32
        outputs.append(x)
    return outputs


def numerators(seed: int, count: int, drift: int = 0) -> list[int]:
    """Log-ratios or rewards as multiples of `2^-(23 + shift)`."""
    return [(x >> 8) - 2**23 + drift for x in integers(seed, count)]


def prefix_entry(case: Entry) -> Entry:
    """Exact sums of log-ratios and the weights to 30 digits."""
    steps = numerators(case["lcg_seed"], case["T"], case["drift"])
    unit = EXACT.divide(Decimal(1), Decimal(2 ** (23 + case["shift"])))
    checkpoints = []
    for terms in (point["terms"] for point in case["checkpoints"]):
        log_weight = EXACT.multiply(Decimal(sum(steps[:terms])), unit)
        checkpoints.append(
            {
                "terms": terms,
                "L": float(log_weight),
                "L_str": str(log_weight),
                "w_str": str(DIGITS.exp(log_weight)),
            }
        )
    return case | {"checkpoints": checkpoints}


def returns_entry(case: Entry) -> Entry:
    """Weighted returns to 30 digits, with the weights as they are and truncated at 1."""
    ratios = numerators(case["lcg_seed_logratio"], case["T"])
    rewards = numerators(case["lcg_seed_reward"], case["T"])
    unit = EXACT.divide(Decimal(1), Decimal(2 ** (23 + case["shift"])))
    reward_unit = EXACT.divide(Decimal(1), Decimal(2 ** (23 + case["reward_shift"])))
    gamma, discount = Decimal(case["gamma"]), Decimal(1)
    running, total, truncated = 0, Decimal(0), Decimal(0)
    for ratio, reward in zip(ratios, rewards, strict=True):
        running += ratio
        weight = WORKING.exp(EXACT.multiply(Decimal(running), unit))
        gain = WORKING.multiply(discount, EXACT.multiply(Decimal(reward), reward_unit))
        total = WORKING.add(total, WORKING.multiply(weight, gain))
        truncated = WORKING.add(truncated, WORKING.multiply(min(weight, Decimal(1)), gain))
        discount = WORKING.multiply(discount, gamma)
    return case | {
        "sum": float(total),
        "sum_str": str(DIGITS.plus(total)),
        "sum_trunc1": float(truncated),
        "sum_trunc1_str": str(DIGITS.plus(truncated)),
    }


def normalised_entry(case: Entry) -> Entry:
    """Self-normalised weights, their log-sum, sample size, and truncated weights."""
    log_weights = [Decimal(x) for x in case["logw"]]
    powers = [WORKING.exp(x) for x in log_weights]
    total = sum(powers, Decimal(0))
    weights = [WORKING.divide(x, total) for x in powers]
    limit = Decimal(case["truncate_at"])
    return case | {
        "weights": [float(x) for x in weights],
        "logsumexp": float(WORKING.ln(total)),
        "ess": float(1 / sum(x * x for x in weights)),
        "truncated": [float(min(x, limit)) for x in powers],
    }


def spike_entry(case: Entry) -> Entry:
    """Ratios that overflow alone and not together."""
    sums, running = [], Decimal(0)
    for x in case["log_ratio"]:
        running += Decimal(x)
        sums.append(running)
    truncated = [float(min(WORKING.exp(x), Decimal(2))) for x in sums]
    return case | {"L": [float(x) for x in sums], "w_trunc2": truncated}


def khat(case: Entry) -> float:
    """Pareto k of the right tail, with the prior of Zhang and Stephens' fit, as ArviZ does."""
    uniform = (np.array(integers(case["lcg_seed"], case["S"]), dtype=float) + 0.5) / 2**32
    log_weights = np.sort(-case["true_k"] * np.log(uniform))
    log_weights = log_weights - log_weights[-1]
    count = len(log_weights)
    length = count // 5 if count <= 225 else int(3 * count**0.5)
    # Excesses of the tail over the largest weight below it.
    cutoff = np.exp(log_weights[-length - 1])
    excess = np.exp(log_weights[-length:]) - cutoff
    candidates = 30 + int(length**0.5)
    b = 1 - np.sqrt(candidates / (np.arange(1, candidates + 1) - 0.5))
    b = b / (3 * excess[int(length / 4 + 0.5) - 1]) + 1 / excess[-1]
    k = np.array([np.log1p(-x * excess).mean() for x in b])
    log_likelihood = length * (np.log(-b / k) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights = weights / weights.sum()
    fitted = np.log1p(-(weights @ b) * excess).mean()
    return float((length * fitted + 5) / (length + 10))
