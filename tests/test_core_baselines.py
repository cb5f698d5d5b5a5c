import itertools

import pytest
import torch
from core_batches import close, ragged

from reweigh.core import advantages, returns, weights
from reweigh.core.segments import Segments

GAMMA = 0.9


# A small decision process, of which every batch of two episodes can be enumerated. State 2 is
# terminal; rewards depend on state and action.
GENERATOR = torch.Generator().manual_seed(5)
TRANSITION = torch.rand(2, 2, 3, generator=GENERATOR, dtype=torch.float64)
TRANSITION /= TRANSITION.sum(2, keepdim=True)
REWARD = torch.randn(2, 2, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.randn(2, 2, generator=GENERATOR, dtype=torch.float64).log_softmax(1)
BEHAVIOUR = torch.randn(2, 2, generator=GENERATOR, dtype=torch.float64).log_softmax(1)


def walk(state, horizon):
    """Every path of states and actions from a state, and its probability under the behaviour."""
    if state == 2 or horizon == 0:
        yield 1.0, []
        return
    for action in range(2):
        chosen = float(BEHAVIOUR[state, action].exp())
        # After the last action it does not matter where it leads.
        for later in range(3) if horizon > 1 else [2]:
            moved = float(TRANSITION[state, action, later]) if horizon > 1 else 1.0
            for p, rest in walk(later, horizon - 1):
                yield chosen * moved * p, [(state, action), *rest]


PATHS = [(0.5 * p, path) for state in range(2) for p, path in walk(state, 2)]


def expected_gradient(estimator):
    """`E_φ` of the mean over two episodes of `Σ_t coefficient_t score_t`, exactly."""
    total = torch.zeros(2, 2, dtype=torch.float64)
    for i, j in itertools.combinations_with_replacement(range(len(PATHS)), 2):
        (p, first), (q, second) = PATHS[i], PATHS[j]
        orders = 1 if i == j else 2
        s, a = torch.tensor(first + second).T
        segments = Segments.packed([len(first), len(second)])
        log_ratios = TARGET[s, a] - BEHAVIOUR[s, a]
        coefficient = estimator(log_ratios, REWARD[s, a], s, segments)
        score = torch.nn.functional.one_hot(a, 2) - TARGET[s].exp()
        total.index_add_(0, s, orders * p * q * 0.5 * coefficient.unsqueeze(1) * score)
    return total


def logged(weight):
    """The weight on the logged reward-to-go."""

    def terms(log_ratios, rewards, segments):
        log_weights = weight(log_ratios, segments)
        continuation = returns.reward_to_go(rewards, segments, discount=GAMMA)
        return log_weights.exp() * continuation, log_weights

    return terms


def per_decision(log_ratios, rewards, segments):
    prefix = weights.prefix(log_ratios, segments)
    return returns.weighted_reward_to_go(rewards, prefix, segments, discount=GAMMA), prefix


def above_states(terms):
    def estimator(log_ratios, rewards, states, segments):
        continuation, log_weights = terms(log_ratios, rewards, segments)
        return advantages.above_baseline(continuation, log_weights, 3.0 - 2.0 * states, segments)

    return estimator


def bare(terms):
    return lambda log_ratios, rewards, states, segments: terms(log_ratios, rewards, segments)[0]


def truncated(log_ratios, segments):
    return weights.truncate(weights.prefix(log_ratios, segments), segments, maximum=0.8).log_weights


def test_the_paths_are_all_there_are():
    assert sum(p for p, _ in PATHS) == pytest.approx(1.0, abs=1e-14)
    assert {len(path) for _, path in PATHS} == {1, 2}


@pytest.mark.parametrize(
    "terms",
    [logged(weights.step), logged(weights.prefix), logged(weights.trajectory), per_decision],
    ids=["step", "prefix", "trajectory", "per_decision"],
)
def test_a_baseline_with_the_same_weight_changes_no_expectation(terms):
    close(expected_gradient(above_states(terms)), expected_gradient(bare(terms)))


@pytest.mark.parametrize(
    "weight", [lambda x, segments: 0 * x, truncated], ids=["ratio-free", "truncated"]
)
def test_under_other_weights_a_baseline_changes_it(weight):
    terms = logged(weight)
    change = expected_gradient(above_states(terms)) - expected_gradient(bare(terms))
    assert float(change.abs().max()) > 1e-2


def test_nothing_times_infinity_is_nothing():
    segments = Segments.packed([4])
    found = advantages.above_baseline(
        torch.ones(4),
        torch.tensor([1e4, -torch.inf, 0.0, -1e4]),
        torch.tensor([0.0, torch.inf, 0.25, 2.0]),
        segments,
    )
    assert found.tolist() == [1.0, 1.0, 0.75, 1.0]


def test_baselines_are_constants():
    b = ragged([3, 2], 0)
    x = b.rewards.requires_grad_()
    assert not advantages.above_baseline(x, x, x, b.segments).requires_grad


def test_refusals():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"baseline must have shape \[2\]"):
        advantages.above_baseline(x, x, torch.zeros(3), Segments.packed([2]))
