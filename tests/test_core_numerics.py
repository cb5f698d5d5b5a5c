"""What holds of every function at once: no loops over time or episodes, and exact long products."""

from functools import partial

import pytest
import torch
from core_batches import PER_BATCH, PER_STEP, close, ragged
from recipe_table import INPUTS, loss
from torch.utils._python_dispatch import TorchDispatchMode

from reweigh import verify
from reweigh.core import returns, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments
from reweigh.verify.numerics import random_dyadics

FITTED = {"pareto_smoothed"}  # fits a tail, which takes more where there is more than one episode
RECIPES = {f"recipe {name}": partial(loss, name) for name in INPUTS if name not in FITTED}
FUNCTIONS = {**PER_STEP, **PER_BATCH, **RECIPES}


class Count(TorchDispatchMode):
    """Counts the tensor operations that run."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        return function(*args, **(kwargs or {}))


def operations(function, lengths):
    b = ragged(lengths, 0)
    with Count() as count:
        function(b)
    return count.operations


# Their argument is as long as the longest episode that the other tests have.
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "schedule_sources"])
def test_no_function_loops_over_episodes_or_steps(name):
    base = operations(FUNCTIONS[name], [16] * 4)
    # Not one operation more for each of the 60 episodes more. Smoothing tries 30 + √M shapes of a
    # tail of M weights, one after the other, which saves the memory of trying them at once.
    more = 300 if name.startswith("smooth") else 59
    assert operations(FUNCTIONS[name], [16] * 64) <= base + more
    # 64 times the steps are 6 doublings more, each of a dozen operations and a few such scans.
    assert operations(FUNCTIONS[name], [1024] * 4) <= base + 6 * 70


@pytest.fixture(scope="module")
def long_products():
    (case, *_) = verify.load()["numerics"]["prefix"]
    ratios = random_dyadics(case["lcg_seed"], case["T"], shift=case["shift"])
    return ratios, {c["terms"]: c["L"] for c in case["checkpoints"]}


# The rounding of log-probabilities stored in float32: that of the inputs, and of nothing else.
FLOAT32 = {1000: 3e-5, 10_000: 6e-5, 100_000: 3e-4, 1_000_000: 6e-4}


@pytest.mark.parametrize("terms", FLOAT32)
def test_long_products_of_float32_log_probs_are_as_exact_as_these(long_products, terms):
    ratios, golden = long_products
    behaviour = -1.5 - random_dyadics(5, len(ratios), shift=0).abs()
    segments = Segments.packed([len(ratios)])
    exact = log_ratios(behaviour + ratios, behaviour, segments)
    close(weights.prefix(exact, segments)[terms - 1], golden[terms], 1e-9)
    rounded = log_ratios((behaviour + ratios).float(), behaviour.float(), segments)
    found = weights.prefix(rounded, segments)[terms - 1]
    assert abs(float(found) - golden[terms]) < FLOAT32[terms]


def test_half_precision_log_probs_are_refused_and_rewards_are_not(long_products):
    ratios = long_products[0][:1000]
    segments = Segments.packed([1000])
    for half in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match="changes importance weights by tens of percent"):
            log_ratios(ratios.to(half), torch.zeros(1000), segments)
    rewards = torch.ones(1000, dtype=torch.bfloat16)
    found = returns.weighted_reward_to_go(rewards, 0 * ratios, segments, discount=1.0)
    assert found.dtype == torch.float64 and found[0].item() == 1000.0


def test_a_million_steps_are_returned_and_normalised(long_products):
    ratios, golden = long_products
    count, terms = len(ratios), max(golden)
    two = Segments.packed([count, count])
    both = weights.prefix(torch.cat([ratios, ratios - 1e-3]), two)
    normalised = weights.self_normalise(both, two).exp()
    close(normalised[:count] + normalised[count:], torch.full((count,), 2.0), 1e-9)
    truncated = weights.truncate(both, two, maximum=1.0).log_weights
    found = returns.weighted_reward_to_go(torch.ones(2 * count), truncated, two, discount=1.0)
    close(found[0], truncated[:count].exp().sum(), 1e-9)
    close(both[terms - 1], golden[terms], 1e-9)
