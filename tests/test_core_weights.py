import math

import pytest
import torch
from core_batches import SHARES, ragged, ragged_lengths, seeds
from hypothesis import given, settings

from reweigh.core import returns, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)


def close(found, want, tolerance=1e-12):
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)


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


@pytest.mark.parametrize("maximum", [0.5, 1.0, 2.0, math.inf])
def test_truncation(maximum):
    b = ragged([4, 4], 2)
    found = weights.truncate(b.prefix, b.segments, maximum=maximum)
    close(found.log_weights.exp(), b.prefix.exp().clamp(max=maximum))
    assert found.touched.tolist() == (b.prefix.exp() > maximum).tolist()


def test_truncation_before_exp_does_not_overflow():
    segments = Segments.packed([2])
    log_weights = torch.tensor([800.0, -800.0], requires_grad=True)
    found = weights.truncate(log_weights, segments, maximum=2.0)
    close(found.log_weights.detach(), [math.log(2.0), -800.0])
    (gradient,) = torch.autograd.grad(found.log_weights.exp().sum(), log_weights)
    assert gradient.tolist() == [0.0, 0.0]


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


def test_one_source_is_no_mixture():
    b = ragged([3, 4], 5)
    alone, one = b.behaviour.unsqueeze(0), torch.ones(1)
    close(weights.mixture(alone, one, b.segments), b.behaviour)
    close(weights.balance_heuristic(b.target, alone, one, b.segments), b.prefix)


def test_mixtures_are_sums_of_probabilities():
    b = ragged([2, 3], 6)
    want = (SHARES.double().unsqueeze(1) * b.sources.exp()).sum(0)
    close(weights.mixture(b.sources, SHARES, b.segments).exp(), want)
    products = torch.stack([x.exp().cumprod(0)[-1] for x in b.sources[:, 2:]])
    want = b.target[2:].exp().prod() / (SHARES.double() * products).sum()
    found = weights.balance_heuristic(b.target, b.sources, SHARES, b.segments)
    close(found[-1].exp(), want)


def test_the_balance_heuristic_is_bounded_by_every_source():
    b = ragged([6] * 5, 7)
    found = weights.balance_heuristic(b.target, b.sources, SHARES, b.segments)
    for share, source in zip(SHARES, b.sources, strict=True):
        own = weights.prefix(log_ratios(b.target, source, b.segments), b.segments)
        assert bool((found <= own - share.log() + 1e-6).all())


def test_a_source_that_never_takes_the_action_drops_out():
    segments = Segments.packed([1])
    sources = torch.tensor([[-torch.inf], [-1.0]])
    found = weights.mixture(sources, torch.tensor([0.5, 0.5]), segments)
    close(found, [-1.0 + math.log(0.5)], 1e-6)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.5, -0.5], [torch.nan, 1.0]])
def test_refuses_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        weights.mixture(torch.zeros(2, 1), torch.tensor(shares), Segments.packed([1]))


@pytest.mark.parametrize("maximum", [0.0, -1.0, math.nan])
def test_refuses_a_bound_that_is_none(maximum):
    with pytest.raises(ValueError, match="maximum must be positive"):
        weights.truncate(torch.zeros(1), Segments.packed([1]), maximum=maximum)
