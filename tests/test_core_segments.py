import pytest
import torch
from core_batches import PER_BATCH, PER_STEP, STEPS, ragged, ragged_lengths, scatter, seeds
from hypothesis import given, settings

from reweigh.core.segments import Segments
from reweigh.core.weights import log_sum_by_time

PAIR = Segments.packed([2])

few = settings(max_examples=12, deadline=None, derandomize=True)


def gradients(function, batch, cotangent):
    leaves = [getattr(batch, name).clone().requires_grad_() for name in STEPS]
    for name, leaf in zip(STEPS, leaves, strict=True):
        setattr(batch, name, leaf)
    out = function(batch)
    if not out.requires_grad:
        return out, [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad((out * cotangent).sum(), leaves, allow_unused=True)
    return out.detach(), [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(leaves, found, strict=True)
    ]


@pytest.mark.parametrize("name", PER_STEP)
@few
@given(lengths=ragged_lengths, seed=seeds)
def test_a_masked_step_does_not_exist(name, lengths, seed):
    packed = ragged(lengths, seed)
    scattered, positions = scatter(packed, seed)
    g = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(len(positions), generator=g, dtype=torch.float64)
    laid_out = torch.zeros(scattered.segments.size, dtype=torch.float64)
    laid_out[positions] = cotangent
    expected, expected_gradients = gradients(PER_STEP[name], packed, cotangent)
    found, found_gradients = gradients(PER_STEP[name], scattered, laid_out)
    for value, want in zip([found, *found_gradients], [expected, *expected_gradients], strict=True):
        elsewhere = value.clone()
        elsewhere[positions] = 0.0
        torch.testing.assert_close(value[positions], want, rtol=1e-11, atol=1e-11)
        assert bool((elsewhere == 0).all())


@pytest.mark.parametrize("name", PER_BATCH)
@few
@given(lengths=ragged_lengths, seed=seeds)
def test_a_masked_step_does_not_count(name, lengths, seed):
    packed = ragged(lengths, seed)
    scattered, positions = scatter(packed, seed)
    ones = torch.ones((), dtype=torch.float64)
    expected, expected_gradients = gradients(PER_BATCH[name], packed, ones)
    found, found_gradients = gradients(PER_BATCH[name], scattered, ones)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for value, want in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(value[positions], want, rtol=1e-11, atol=1e-11)
        assert bool(torch.isfinite(value).all())


def test_padded_is_packed_with_other_numbers():
    padded = Segments.padded([3, 0, 2], 4)
    assert padded.start.tolist() == [0, 4, 8]
    assert padded.inside.tolist() == [True] * 3 + [False] * 5 + [True] * 2 + [False] * 2
    assert padded.time[padded.inside].tolist() == Segments.packed([3, 0, 2]).time.tolist()


def test_holes_and_fragments_in_time():
    segments = Segments.packed(
        [4, 3],
        mask=torch.tensor([True, False, True, True, False, True, True]),
        time_start=torch.tensor([0, 5]),
    )
    assert segments.time.tolist() == [0, 0, 1, 2, 0, 5, 6]
    assert segments.lengths.tolist() == [3, 2]
    assert segments.is_last.nonzero().squeeze(1).tolist() == [3, 6]
    assert segments.has_fragments and not Segments.packed([1]).has_fragments


def test_an_empty_episode_counts():
    segments = Segments.packed([0, 2, 0])
    assert len(segments) == 3
    assert segments.total(torch.ones(2)).tolist() == [0.0, 2.0, 0.0]
    assert segments.last(torch.tensor([1.0, 7.0])).tolist() == [0.0, 7.0, 0.0]
    # Its weight is 1 at every time, so that of three weights 1 the sum is 3.
    assert log_sum_by_time(torch.zeros(2), segments).exp().tolist() == pytest.approx([3.0, 3.0])


def test_nothing_at_all():
    assert Segments.packed([0]).time.tolist() == []


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ([0, 2], [3, 4], "episodes 0 and 1 overlap"),
        ([2, 0], [4, 3], "episodes 1 and 0 overlap"),
        ([0, 3], [3, 6], "episode 1 spans positions 3 to 6"),
        ([0, 3], [3, 2], "episode 1 spans positions 3 to 2"),
        ([-1, 3], [3, 4], "episode 0 spans positions -1 to 3"),
        ([0], [3, 4], r"stop must have shape \[1\]"),
        ([], [], "at least one episode"),
    ],
)
def test_refuses_what_is_no_layout(start, stop, message):
    mask = torch.ones(5, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        Segments(
            torch.tensor(start, dtype=torch.int64),
            torch.tensor(stop, dtype=torch.int64),
            mask,
            torch.zeros(len(start), dtype=torch.int64),
        )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Segments.packed([2, -1]), "non-negative integers"),
        (lambda: Segments.packed(torch.tensor([1.5])), "non-negative integers"),
        (lambda: Segments.packed([]), "at least one episode"),
        (lambda: Segments.padded([5], 4), "5 steps exceeds horizon=4"),
        (lambda: Segments.packed([2], mask=torch.ones(2)), "mask must be bool"),
        (
            lambda: Segments.packed([2], mask=torch.ones(3, dtype=torch.bool)),
            r"mask must have shape \[2\].*got \[3\]",
        ),
        (lambda: Segments.packed([2], time_start=torch.tensor([-1])), "must not be negative"),
        (lambda: Segments.packed([2], time_start=torch.tensor([0.5])), "must be int64"),
        (
            lambda: Segments.packed([2]).as_float64("rewards", torch.ones(3)),
            r"rewards.*\[2\].*\[3\]",
        ),
        (
            lambda: Segments.packed([2]).as_float64("rewards", [1, 2]),
            "rewards must be a torch tensor",
        ),
    ],
)
def test_refuses_with_the_users_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_mask_alone_is_a_layout_with_padding_on_either_side_and_holes():
    mask = torch.tensor([[False, True, True, False], [True, False, True, False]])
    segments = Segments.masked(mask)
    assert segments.lengths.tolist() == [2, 2]
    assert segments.inside.tolist() == mask.flatten().tolist()
    assert segments.time.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


def test_a_mask_that_lengths_cut_off_is_refused():
    mask = torch.tensor([False, True, True, False, True, True])
    with pytest.raises(ValueError, match="mask is True at 3 positions that no episode reaches"):
        Segments.padded([2], 6, mask=mask)
    with pytest.raises(ValueError, match="spread over the steps must have shape"):
        Segments.packed([1, 1]).spread(torch.ones(3))
