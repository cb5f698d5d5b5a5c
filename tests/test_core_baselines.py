import itertools

import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import advantages, returns, weights
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)
GAMMA = 0.9


def leave_one_out_by_definition(x, segments):
    """Oracle: for each step, the other episodes that have one at this time."""
    x, spans = x.tolist(), list(zip(segments.start.tolist(), segments.stop.tolist(), strict=True))
    found = []
    for i, (start, stop) in enumerate(spans):
        for t in range(stop - start):
            others = [x[a + t] for j, (a, b) in enumerate(spans) if j != i and a + t < b]
            found.append(sum(others) / len(others) if others else 0.0)
    return found


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_leave_one_out_is_its_definition(lengths, seed):
    b = ragged(lengths, seed)
    found = advantages.leave_one_out_by_time(b.rewards, b.segments)
    close(found, leave_one_out_by_definition(b.rewards, b.segments))


def test_fragments_are_compared_at_their_own_time():
    segments = Segments.packed([2, 2], time_start=torch.tensor([0, 1]))
    found = advantages.leave_one_out_by_time(torch.tensor([1.0, 2.0, 3.0, 4.0]), segments)
    assert found.tolist() == [0.0, 3.0, 2.0, 0.0]


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_best_constant_is_its_definition(lengths, seed):
    b = ragged(lengths, seed)
    squared = b.values.square()
    found = advantages.minimum_variance_constant(b.rewards, b.ratios, squared, b.segments)
    w = b.ratios.exp()
    above = b.segments.total(w * b.rewards * squared).tolist()
    below = b.segments.total(w * w * squared).tolist()
    want = []
    for i, length in enumerate(lengths):
        others = [j for j in range(len(lengths)) if j != i]
        divisor = sum(below[j] for j in others)
        want += [sum(above[j] for j in others) / divisor if divisor else 0.0] * length
    close(found, want, 1e-10)


def test_the_best_constant_is_best():
    """Of two equal episodes each is the other's sample: the derivative vanishes exactly."""
    b = ragged([6], 1)
    twice = Segments.packed([6, 6])
    x, log_weights, squared = (y.repeat(2) for y in (b.rewards, b.ratios, b.values.square()))
    best = advantages.minimum_variance_constant(x, log_weights, squared, twice)
    above = advantages.above_baseline(x, log_weights, best, twice)
    assert abs(float((above * log_weights.exp() * squared).sum())) < 1e-12
    constant = advantages.minimum_variance_constant(
        3.0 * log_weights.exp(), log_weights, squared, twice
    )
    close(constant, torch.full((12,), 3.0))
    alone = advantages.minimum_variance_constant(x[:6], log_weights[:6], squared[:6], b.segments)
    assert alone.tolist() == [0.0] * 6


def test_the_best_constant_of_extreme_weights():
    segments = Segments.packed([1, 1, 1])
    log_weights = torch.tensor([600.0, 600.0, -1e4], dtype=torch.float64)
    found = advantages.minimum_variance_constant(
        2.0 * log_weights.exp(), log_weights, torch.ones(3), segments
    )
    close(found, [2.0, 2.0, 2.0], 1e-9)


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


def above_others(terms):
    def estimator(log_ratios, rewards, states, segments):
        continuation, log_weights = terms(log_ratios, rewards, segments)
        plain = returns.reward_to_go(rewards, segments, discount=GAMMA)
        baseline = advantages.leave_one_out_by_time(plain, segments)
        return advantages.above_baseline(continuation, log_weights, baseline, segments)

    return estimator


def above_states(terms):
    def estimator(log_ratios, rewards, states, segments):
        continuation, log_weights = terms(log_ratios, rewards, segments)
        return advantages.above_baseline(continuation, log_weights, 3.0 - 2.0 * states, segments)

    return estimator


def above_best_constant(terms):
    def estimator(log_ratios, rewards, states, segments):
        continuation, log_weights = terms(log_ratios, rewards, segments)
        best = advantages.minimum_variance_constant(
            continuation, log_weights, 1.0 + states, segments
        )
        return advantages.above_baseline(continuation, log_weights, best, segments)

    return estimator


def bare(terms):
    return lambda log_ratios, rewards, states, segments: terms(log_ratios, rewards, segments)[0]


def truncated(log_ratios, segments):
    return weights.truncate(weights.prefix(log_ratios, segments), segments, maximum=0.8).log_weights


def test_the_paths_are_all_there_are():
    assert sum(p for p, _ in PATHS) == pytest.approx(1.0, abs=1e-14)
    assert {len(path) for _, path in PATHS} == {1, 2}


@pytest.mark.parametrize("above", [above_others, above_states, above_best_constant])
@pytest.mark.parametrize(
    "terms",
    [logged(weights.step), logged(weights.prefix), logged(weights.trajectory), per_decision],
    ids=["step", "prefix", "trajectory", "per_decision"],
)
def test_a_baseline_with_the_same_weight_changes_no_expectation(terms, above):
    close(expected_gradient(above(terms)), expected_gradient(bare(terms)))


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
    for found in (
        advantages.above_baseline(x, x, x, b.segments),
        advantages.leave_one_out_by_time(x, b.segments),
        advantages.minimum_variance_constant(x, x, x, b.segments),
        advantages.control_variate(x, x, expectation=1.0),
    ):
        assert not found.requires_grad


@several
@given(seed=seeds)
def test_the_control_variate_is_the_regression_of_pois(seed):
    b = ragged([7], seed)
    w, scores = b.ratios.exp(), b.ratios.exp() * b.rewards
    slope = ((w - w.mean()) * scores).sum() / (w - w.mean()).square().sum()
    found = advantages.control_variate(scores, w, expectation=1.0)
    close(found, scores - slope * (w - 1.0), 1e-9)
    # The regression leaves nothing that the variate explains.
    assert abs(float(((w - w.mean()) * found).sum())) < 1e-9


@pytest.mark.parametrize("unit", [1.0, 1e200, 1e-200])
def test_terms_linear_in_the_variate_become_their_expectation(unit):
    v = unit * torch.tensor([1.0, 2.0, 4.0, 5.5], dtype=torch.float64)
    found = advantages.control_variate(3.0 + 2.0 / unit * v, v, expectation=2.5 * unit)
    close(found, torch.full((4,), 8.0))


def test_a_variate_that_does_not_vary_changes_nothing():
    x = torch.tensor([1.0, 2.0, 4.0])
    assert advantages.control_variate(x, torch.ones(3), expectation=5.0).tolist() == x.tolist()
    assert advantages.control_variate(x[:1], x[1:2], expectation=5.0).tolist() == [1.0]


def test_refusals():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"variates must have shape \[2\]"):
        advantages.control_variate(x, torch.zeros(3), expectation=1.0)
    with pytest.raises(ValueError, match="number of terms must be an integer of at least 1"):
        advantages.control_variate(x[:0], x[:0], expectation=1.0)
    with pytest.raises(ValueError, match=r"baseline must have shape \[2\]"):
        advantages.above_baseline(x, x, torch.zeros(3), Segments.packed([2]))
