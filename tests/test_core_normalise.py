import pytest
import torch
from core_batches import close, ragged, ragged_lengths, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from reweigh.core import weights
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


def self_normalised_densely(b):
    """Oracle: an [N, T] table of frozen weights, normalised column by column."""
    count, times = len(b.segments), max(int(b.segments.lengths.max()), 1)
    table = torch.ones(count, times, dtype=torch.float64)
    for i, (start, stop) in enumerate(zip(b.segments.start, b.segments.stop, strict=True)):
        own = b.prefix[start:stop].exp()
        if len(own):
            table[i, : len(own)], table[i, len(own) :] = own, own[-1]
    normalised = count * table / table.sum(0)
    parts = [normalised[i, :n] for i, n in enumerate(b.segments.lengths.tolist())]
    return torch.cat(parts), table


@several
@given(lengths=ragged_lengths, seed=seeds)
def test_self_normalisation_is_over_all_episodes_at_each_time(lengths, seed):
    b = ragged(lengths, seed)
    want, table = self_normalised_densely(b)
    close(weights.self_normalise(b.prefix, b.segments).exp(), want)
    close(weights.log_sum_by_time(b.prefix, b.segments).exp(), table.sum(0))


@several
@given(seed=seeds)
def test_self_normalised_weights_average_one_and_ignore_a_shift(seed):
    b = ragged([5] * 4, seed)
    normalised = weights.self_normalise(b.prefix, b.segments)
    close(normalised.exp().reshape(4, 5).mean(0), torch.ones(5))
    for shift in (700.0, -5000.0):
        close(weights.self_normalise(b.prefix + shift, b.segments), normalised, 1e-11)


def test_self_normalising_trajectory_weights_is_over_trajectories():
    b = ragged([2, 5, 3], 4)
    whole = weights.trajectory(b.ratios, b.segments)
    each = b.segments.last(whole).exp()
    want = b.segments.spread(3 * each / each.sum())
    close(weights.self_normalise(whole, b.segments).exp(), want)


def test_weights_that_are_all_zero_stay_zero():
    segments = Segments.packed([1, 1])
    found = weights.self_normalise(torch.full((2,), -torch.inf), segments)
    assert found.exp().tolist() == [0.0, 0.0]


def part(b, chosen):
    """The chosen episodes alone: their prefix weights, their segments, their places."""
    places = [torch.arange(int(b.segments.start[i]), int(b.segments.stop[i])) for i in chosen]
    index = torch.cat(places)
    return b.prefix[index], Segments.packed([len(p) for p in places]), index


@several
@given(lengths=st.lists(st.integers(0, 9), min_size=4, max_size=8), seed=seeds)
def test_parts_with_merged_sums_are_normalised_as_the_whole(lengths, seed):
    b = ragged(lengths, seed)
    group = torch.arange(len(lengths)) % 2
    whole = weights.self_normalise(b.prefix, b.segments)
    by_group = weights.self_normalise_groups(b.prefix, group, b.segments, groups=2)
    chosen = [[0], [1, 3], [2, *range(4, len(lengths))]]
    parts = [part(b, own) for own in chosen]
    each = [weights.log_sums(x, s) for x, s, _ in parts]
    merged = each[2].merge(each[0]).merge(each[1])
    of_groups = [
        weights.log_sums_of_groups(x, group[own], s, groups=2)
        for own, (x, s, _) in zip(chosen, parts, strict=True)
    ]
    merged_groups = of_groups[0].merge(of_groups[1].merge(of_groups[2]))
    for own, (x, s, index) in zip(chosen, parts, strict=True):
        close(weights.self_normalise(x, s, sums=merged), whole[index])
        found = weights.self_normalise_groups(x, group[own], s, groups=2, sums=merged_groups)
        close(found, by_group[index])


def test_groups_are_normalised_apart():
    b = ragged([4, 2, 5, 4, 3], 9)
    group = torch.tensor([1, 0, 1, 0, 2])
    found = weights.self_normalise_groups(b.prefix, group, b.segments, groups=4)
    for g in range(3):
        x, segments, index = part(b, (group == g).nonzero().squeeze(1).tolist())
        close(found[index], weights.self_normalise(x, segments))
    # A group of one says nothing of its own weight.
    close(found[b.segments.episode == 4], torch.zeros(3))


def test_a_micro_batch_of_one_that_normalises_itself_disables_the_correction():
    b = ragged([5], 3)
    close(weights.self_normalise(b.prefix, b.segments), torch.zeros(5))


def test_normalising_is_differentiable():
    b = ragged([4, 0, 3, 4], 5)
    group = torch.tensor([0, 0, 1, 1])
    assert torch.autograd.gradcheck(
        lambda x: weights.self_normalise_groups(x, group, b.segments, groups=2),
        (b.prefix.clone().requires_grad_(),),
    )


def test_weights_beyond_float64_are_normalised():
    segments = Segments.packed([2, 2])
    log_weights = torch.tensor([1e4, -1e4, 1e4, -1e4 + 1], dtype=torch.float64)
    found = weights.self_normalise(log_weights, segments).exp()
    close(found[[0, 2]], [1.0, 1.0])
    close(found[1] / found[3], torch.tensor(-1.0).double().exp(), 1e-11)


def test_sums_of_other_groups_or_of_too_few_steps_are_refused():
    x, segments = torch.zeros(3), Segments.packed([3])
    other = weights.log_sums(torch.zeros(1), Segments.packed([1]))
    with pytest.raises(ValueError, match="merge the sums of every part, this one included"):
        weights.self_normalise(x, segments, sums=other)
    two = weights.log_sums_of_groups(x, torch.zeros(1).long(), segments, groups=2)
    with pytest.raises(ValueError, match="the parts have 1 and 2 groups"):
        weights.log_sums(x, segments).merge(two)


def test_normalising_weights_of_zero_has_gradients():
    """Every weight of a time zero, or an ended episode's: sums of nothing on the way."""
    segments = Segments.packed([2, 1, 2])
    ratios = torch.tensor([-torch.inf, 0.3, -torch.inf, 0.2, -torch.inf], dtype=torch.float64)
    leaf = ratios.clone().requires_grad_()
    prefix = weights.prefix(leaf, segments)
    found = weights.self_normalise(prefix, segments)
    (slope,) = torch.autograd.grad(found.exp().sum(), leaf)
    assert slope.isfinite().all()
    alone = Segments.packed([1, 1])
    leaf = torch.full((2,), -torch.inf, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(weights.self_normalise(leaf, alone).exp().sum(), leaf)
    assert slope.tolist() == [0.0, 0.0]


def test_groups_out_of_range_are_refused():
    x, segments = torch.zeros(2), Segments.packed([1, 1])
    sums = weights.log_sums_of_groups(x, torch.tensor([0, 1]), segments, groups=2)
    with pytest.raises(ValueError, match=r"group must lie in \[0, 2\)"):
        weights.self_normalise_groups(x, torch.tensor([0, -1]), segments, groups=2, sums=sums)
