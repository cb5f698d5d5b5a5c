import pytest
import torch
from core_batches import close, ragged

from reweigh.core import reduce, surrogates, weights
from reweigh.core.segments import Segments

LENGTHS = [3, 2, 0, 4, 5]
PARTS = [slice(0, 2), slice(2, 4), slice(4, 5)]  # of the episodes
LONGEST = 6

POLICIES = {
    "episodes": lambda s, kept: reduce.count_episodes(s),
    "surviving episodes": reduce.count_episodes,
    "steps": lambda s, kept: reduce.count_steps(s),
    "surviving steps": reduce.count_steps,
    "constant": lambda s, kept: reduce.count_episodes(s) * LONGEST,
}


def gradient(objective, leaf):
    return torch.autograd.grad(objective, leaf)[0]


def parts(*per_step):
    """Micro-batches of the ragged batch: their segments and tensors."""
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).tolist()
    for episodes in PARTS:
        steps = slice(ends[episodes.start], ends[episodes.stop])
        yield Segments.packed(LENGTHS[episodes]), *(x[steps] for x in per_step)


def batch(rejected=(1, 2, 3, 4, 8)):
    """An objective that is 0 where its step was rejected; episode 1 is rejected as a whole."""
    b = ragged(LENGTHS, 3)
    kept = torch.ones(b.segments.size, dtype=torch.bool)
    kept[list(rejected)] = False
    log_prob = b.target.requires_grad_()
    bounded = weights.reject(b.ratios, kept, b.segments).log_weights
    return b, log_prob, bounded.exp(), kept


def test_the_loss_is_the_negative_mean_over_episodes():
    segments = Segments.packed([3, 0, 1])
    objective = torch.tensor([1.0, 2.0, 3.0, 6.0], requires_grad=True)
    loss = reduce.loss(objective, segments)
    assert loss.item() == -4.0
    assert gradient(loss, objective).tolist() == pytest.approx([-1 / 3] * 4)
    assert reduce.loss(objective, segments, divisor=reduce.count_episodes(segments)) == loss


def test_counts():
    segments = Segments.packed([2, 0, 3], mask=torch.tensor([True, False, True, True, True]))
    kept = torch.tensor([False, True, True, False, True])
    assert reduce.count_episodes(segments).item() == 3
    assert reduce.count_steps(segments).item() == 4
    # The first episode's only step is rejected; the empty one has none to reject.
    assert reduce.count_episodes(segments, kept).item() == 2
    assert reduce.count_steps(segments, kept).item() == 2
    everything = torch.ones(5, dtype=torch.bool)
    assert reduce.count_episodes(segments, everything) == reduce.count_episodes(segments)
    assert reduce.count_steps(segments, everything) == reduce.count_steps(segments)


@pytest.mark.parametrize("rejected", [(), (1, 2, 3, 4, 8), tuple(range(14))])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mean", [False, True])
def test_micro_batches_add_up_to_the_full_batch(policy, rejected, mean):
    b, log_prob, weight, kept = batch(rejected)
    count = POLICIES[policy]

    def objective(log_prob, weight, advantages, kept, segments):
        found = surrogates.weighted_log_prob(log_prob, weight, advantages, segments)
        return reduce.per_episode_mean(found, segments, kept) if mean else found

    whole = reduce.loss(
        objective(log_prob, weight, b.advantages, kept, b.segments),
        b.segments,
        divisor=count(b.segments, kept),
    )
    divisor = sum(count(s, k) for s, k in parts(kept))
    losses = [
        reduce.loss(objective(p, w, a, k, s), s, divisor=divisor)
        for s, p, w, a, k in parts(log_prob, weight, b.advantages, kept)
    ]
    close(torch.stack(losses).sum(), whole.detach(), 1e-14)
    want = gradient(whole, log_prob)
    accumulated = torch.zeros_like(want)
    for loss in losses:
        accumulated += gradient(loss, log_prob)
    assert torch.equal(accumulated, want)
    assert bool((want[~kept] == 0).all())
    if len(rejected) == 14:
        assert whole.item() == 0.0 and bool((want == 0).all())


def test_dividing_by_parts_once_more_is_too_small():
    # A trainer that divides by the batch's steps, and then again by the number of micro-batches
    # (ms-swift#10117), learns that much more slowly.
    b, log_prob, weight, _ = batch()
    whole = reduce.loss(weight * log_prob, b.segments, divisor=reduce.count_steps(b.segments))
    theirs = sum(
        reduce.loss(w * p, s, divisor=reduce.count_steps(b.segments)) / len(PARTS)
        for s, p, w in parts(log_prob, weight)
    )
    close(theirs * len(PARTS), whole.detach(), 1e-14)


def test_the_mean_over_survivors_needs_their_count():
    # Ten tokens of which six are rejected. Counted before the rejection (verl#4852, slime#657), the
    # mean of the survivors comes out at 0.4 of itself: 0.49 for 1.23. Where that is what one wants,
    # it is another divisor, and visible.
    segments = Segments.packed([4, 6])
    kept = torch.tensor([True] * 4 + [False] * 6)
    objective = torch.where(kept, -1.23, 0.0)
    ours = reduce.loss(objective, segments, divisor=reduce.count_steps(segments, kept))
    theirs = reduce.loss(objective, segments, divisor=reduce.count_steps(segments))
    assert ours.item() == pytest.approx(1.23)
    assert theirs.item() == pytest.approx(0.492)
    by_episode = reduce.per_episode_mean(objective, segments, kept)
    surviving = reduce.count_episodes(segments, kept)
    assert reduce.loss(by_episode, segments, divisor=surviving).item() == pytest.approx(1.23)
    assert reduce.loss(by_episode, segments).item() == pytest.approx(0.615)


def test_the_mean_of_means():
    b = ragged(LENGTHS, 4)
    kept, rewards = b.values > -0.5, b.rewards.split(LENGTHS)
    everything = [float(x.mean()) if len(x) else 0.0 for x in rewards]
    survivors = [
        float(x[k].mean()) if bool(k.any()) else 0.0
        for x, k in zip(rewards, kept.split(LENGTHS), strict=True)
    ]
    for alive, means in ((None, everything), (kept, survivors)):
        objective = reduce.per_episode_mean(b.rewards.requires_grad_(), b.segments, alive)
        found = reduce.loss(objective, b.segments)
        assert found.item() == pytest.approx(-sum(means) / len(LENGTHS), abs=1e-14)
    slope = gradient(found, b.rewards)
    assert bool((slope[~kept] == 0).all()) and bool((slope[kept] != 0).all())


def test_with_equal_lengths_all_means_are_one():
    b = ragged([3, 3], 0)
    close(reduce.per_episode_mean(b.rewards, b.segments), b.rewards / 3)
    by_steps = reduce.loss(b.rewards, b.segments, divisor=reduce.count_steps(b.segments))
    close(reduce.loss(reduce.per_episode_mean(b.rewards, b.segments), b.segments), by_steps)


def test_a_rejected_step_may_hold_anything():
    objective = torch.tensor([torch.inf, 2.0, torch.nan], requires_grad=True)
    segments = Segments.packed([2, 1])
    kept = torch.tensor([False, True, False])
    found = reduce.per_episode_mean(objective, segments, kept)
    assert found.tolist() == [0.0, 2.0, 0.0]
    assert gradient(found.sum(), objective).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("divisor", [4, 4.0, torch.tensor(4), torch.tensor([4.0])])
def test_a_divisor_is_a_number_or_a_tensor_and_a_constant(divisor):
    assert reduce.loss(torch.ones(2), Segments.packed([2]), divisor=divisor).item() == -0.5


def test_a_divisor_is_not_differentiated():
    divisor = torch.tensor(2.0, requires_grad=True)
    assert not reduce.loss(torch.ones(2), Segments.packed([2]), divisor=divisor).requires_grad


def test_nothing_survived():
    objective = torch.ones(2, requires_grad=True)
    loss = reduce.loss(objective, Segments.packed([2]), divisor=torch.tensor(0))
    assert loss.item() == 0.0
    assert gradient(loss, objective).tolist() == [0.0, 0.0]


def test_refusals():
    one, segments = torch.zeros(1), Segments.packed([1])
    with pytest.raises(ValueError, match="divisor must be positive, got 0"):
        reduce.loss(one, segments, divisor=0)
    with pytest.raises(ValueError, match=r"divisor must be one number, got .* shape \[2\]"):
        reduce.loss(one, segments, divisor=torch.ones(2))
    with pytest.raises(ValueError, match=r"objective must have shape \[1\]"):
        reduce.loss(torch.zeros(2), segments)
    for count in (reduce.count_episodes, reduce.count_steps):
        with pytest.raises(ValueError, match=r"kept_steps must be bool, got torch\.float32"):
            count(segments, one)
        with pytest.raises(ValueError, match=r"kept_steps must have shape \[1\]"):
            count(segments, torch.ones(2, dtype=torch.bool))


def test_an_episode_survives_with_any_of_its_steps():
    segments = Segments.packed([2, 0, 2])
    kept = torch.tensor([False, True, False, False])
    assert reduce.kept_episodes(segments, kept).tolist() == [True, True, False]
    assert reduce.count_episodes(segments, kept).item() == 2.0
