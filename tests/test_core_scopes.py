import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from reweigh.core import returns, scan, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


def test_equal_policies_have_weight_one():
    b = ragged([3, 0, 5], 1)
    ratios = log_ratios(b.target, b.target, b.segments)
    for scope in (weights.step, weights.prefix, weights.trajectory, weights.self_normalise):
        close(scope(ratios, b.segments).exp(), torch.ones(8))


def test_the_prefix_includes_its_own_step():
    segments = Segments.packed([3, 1])
    found = weights.prefix(torch.tensor([2.0, 3.0, 5.0, 7.0]).log(), segments).exp()
    close(found, [2.0, 6.0, 30.0, 7.0], 1e-6)


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_scopes_agree_where_they_must(lengths, seed):
    b = ragged(lengths, seed)
    last = b.segments.last(b.prefix)
    close(weights.trajectory(b.ratios, b.segments), b.segments.spread(last))
    single = Segments.packed([1] * sum(lengths) or [0])
    ratios = log_ratios(b.target, b.behaviour, single)
    close(weights.prefix(ratios, single), weights.step(ratios, single))
    close(weights.trajectory(ratios, single), weights.step(ratios, single))


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_fragments_with_their_prefix_are_the_whole_episode(cut):
    whole = ragged([7, 2], 3)
    parts = Segments.packed([cut, 7 - cut, 2], time_start=torch.tensor([0, cut, 0]))
    ratios = log_ratios(whole.target, whole.behaviour, parts)
    earned = torch.zeros(3, dtype=torch.float64)
    earned[1] = whole.prefix[cut - 1]
    close(weights.prefix(ratios, parts, log_weight_start=earned), whole.prefix)
    close(
        weights.trajectory(ratios, parts, log_weight_start=earned)[cut:],
        weights.trajectory(whole.ratios, whole.segments)[cut:],
    )
    close(
        returns.discount_from_start(parts, discount=0.9),
        returns.discount_from_start(whole.segments, discount=0.9),
    )


@pytest.mark.parametrize(
    "scope",
    [
        weights.prefix,
        weights.trajectory,
        weights.self_normalise,
        lambda x, s: weights.balance_heuristic(x, x.unsqueeze(0), torch.ones(1), s),
    ],
)
def test_fragments_without_their_prefix_are_refused(scope):
    with pytest.raises(ValueError, match="start after time 0"):
        scope(torch.zeros(2), Segments.packed([2], time_start=torch.tensor([4])))


def test_an_action_never_taken_has_weight_zero_from_there_on():
    segments = Segments.packed([3, 1])
    target = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    ratios = log_ratios(target, torch.zeros(4), segments)
    close(weights.prefix(ratios, segments).exp(), [1.0, 0.0, 0.0, 1.0])
    close(weights.trajectory(ratios, segments).exp(), [0.0, 0.0, 0.0, 1.0])


@several
@given(lengths=ragged_lengths, seed=seeds, steps=st.integers(1, 12))
def test_a_window_is_a_difference_of_prefixes(lengths, seed, steps):
    b = ragged(lengths, seed)
    want = b.prefix.clone()
    for start, stop in zip(b.segments.start, b.segments.stop, strict=True):
        own = b.prefix[start:stop]
        want[start:stop][steps:] -= own[:-steps]
    close(weights.window(b.ratios, b.segments, steps=steps), want)


def test_windows_reach_from_step_to_prefix():
    b = ragged([4, 0, 7], 2)
    close(weights.window(b.ratios, b.segments, steps=1), weights.step(b.ratios, b.segments))
    for steps in (7, 8, 1000):
        close(weights.window(b.ratios, b.segments, steps=steps), b.prefix)


def test_a_window_forgets_an_action_never_taken():
    segments = Segments.packed([4, 1])
    ratios = torch.tensor([0.0, -torch.inf, 0.0, 0.0, 0.0])
    found = weights.window(ratios, segments, steps=2).exp()
    assert found.tolist() == [1.0, 0.0, 0.0, 1.0, 1.0]


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_the_exclusive_prefix_is_the_prefix_before(lengths, seed):
    b = ragged(lengths, seed)
    exclusive = weights.exclusive_prefix(b.ratios, b.segments)
    close(exclusive + weights.step(b.ratios, b.segments), b.prefix)
    assert bool((exclusive[b.segments.is_first] == 0).all())


def test_the_exclusive_prefix_after_an_action_never_taken():
    segments = Segments.packed([3])
    ratios = torch.tensor([0.0, -torch.inf, 0.0])
    close(weights.exclusive_prefix(ratios, segments).exp(), [1.0, 1.0, 0.0])
    start = torch.tensor([2.0])
    fragment = Segments.packed([3], time_start=torch.tensor([5]))
    found = weights.exclusive_prefix(torch.zeros(3), fragment, log_weight_start=start)
    close(found, [2.0, 2.0, 2.0])


def test_the_geometric_mean_is_a_root_of_the_product():
    b = ragged([3, 0, 5], 3)
    lengths = b.segments.spread(b.segments.lengths.double())
    whole = weights.trajectory(b.ratios, b.segments)
    close(weights.geometric_mean(b.ratios, b.segments) * lengths, whole)
    single = Segments.packed([1] * 8)
    close(weights.geometric_mean(b.ratios, single), weights.step(b.ratios, single))


def test_turns_are_runs_of_a_label_within_an_episode():
    label = torch.tensor([1, 1, 2, 1, 1, 1, 3])
    mask = torch.tensor([True, True, False, True, True, True, True])
    split = Segments.packed([4, 0, 3], mask=mask).split(label)
    assert split.start.tolist() == [0, 4, 6] and split.stop.tolist() == [4, 6, 7]
    assert split.inside.tolist() == mask.tolist()
    with pytest.raises(ValueError, match="at least one episode"):
        Segments.packed([0]).split(torch.zeros(0))


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_turns_reach_from_prefix_to_trajectory(lengths, seed):
    b = ragged([*lengths, 1], seed)
    each = b.segments.split(torch.arange(b.segments.size))
    close(weights.turn_prefix(b.ratios, each, b.segments), b.prefix)
    one = b.segments.split(torch.zeros(b.segments.size))
    whole = weights.trajectory(b.ratios, b.segments)
    close(weights.turn_prefix(b.ratios, one, b.segments), whole)
    close(weights.trajectory(b.ratios, one), whole)


def test_a_turn_carries_its_whole_product():
    b = ragged([6, 3], 8)
    split = turns(b)
    found = weights.turn_prefix(b.ratios, split, b.segments)
    for start, stop in zip(split.start.tolist(), split.stop.tolist(), strict=True):
        close(found[start:stop], b.prefix[stop - 1].expand(stop - start))


def test_the_marginal_and_a_window_reach_from_step_to_prefix():
    b = ragged([5, 2, 0, 7], 4)
    m = torch.where(b.segments.is_first, 0.0, b.values)
    close(weights.state_marginal(b.ratios, m, b.segments), b.ratios + m)
    close(weights.state_marginal(b.ratios, m, b.segments, steps=9), b.prefix)
    # In between: m two steps earlier, and the last three ratios.
    found = weights.state_marginal(b.ratios, b.values, b.segments, steps=3)
    close(found[4], b.values[2] + b.ratios[2:5].sum())
    close(found[1], b.values[0] + b.ratios[:2].sum())


def test_long_products_stay_exact():
    size = 1_000_000
    ratios = torch.full((size,), 0.1, dtype=torch.float64)
    segments = Segments.packed([size])
    close(weights.prefix(ratios, segments)[-1], 0.1 * size, 1e-11)
    close(weights.window(ratios, segments, steps=size // 2)[-1], 0.05 * size, 1e-11)
    close(weights.exclusive_prefix(ratios, segments)[-1], 0.1 * (size - 1), 1e-11)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_are_exact_in_log_space(extreme, dtype):
    segments = Segments.packed([3])
    target = torch.tensor([extreme, -extreme, 0.5], dtype=dtype).clamp(max=0)
    behaviour = torch.tensor([-extreme, extreme, 0.0], dtype=dtype).clamp(max=0)
    ratios = log_ratios(target, behaviour, segments)
    assert ratios.tolist() == [extreme, -extreme, 0.0]
    assert weights.prefix(ratios, segments).tolist() == [extreme, 0.0, 0.0]


@pytest.mark.parametrize(
    "function",
    [
        weights.step,
        weights.prefix,
        weights.exclusive_prefix,
        weights.trajectory,
        weights.geometric_mean,
        lambda x, s: weights.window(x, s, steps=3),
        lambda x, s: weights.turn_prefix(x, s.split(torch.tensor([0, 0, 1, 1, 1, 2, 0])), s),
        lambda x, s: weights.state_marginal(x, x.cos(), s, steps=2),
        lambda x, s: scan.window_sum(x, s, steps=5),
        lambda x, s: scan.linear_recurrence(x, x.sin(), s),
    ],
)
def test_scopes_are_differentiable(function):
    b = ragged([4, 0, 3], 5)
    assert torch.autograd.gradcheck(
        lambda x: function(x, b.segments), (b.rewards.clone().requires_grad_(),)
    )


def test_refuses_a_window_that_is_none():
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        weights.window(torch.zeros(1), Segments.packed([1]), steps=0)
