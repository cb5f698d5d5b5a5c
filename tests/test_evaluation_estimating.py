"""Estimates from parts: the same numbers as from the whole, warnings, and policies beside logs."""

import math
import threading
from functools import partial

import pytest
import torch
from evaluation_samples import by_loops, sample, select
from torch import nn
from torch.distributions import Categorical, Independent, Normal

import reweigh as rw
from reweigh.data.batch import Batch
from reweigh.evaluation.estimates import WeightProfile, merge_profiles
from reweigh.evaluation.estimating import estimate, ordered_map
from reweigh.evaluation.intervals import bootstrap, student_t
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.policies import act, log_prob

BOUNDED = rw.recipes.truncated_importance_sampling.bind(lowest_return=-100.0)
BY_PARTS = {
    recipe.name: recipe.terms
    for recipe in (
        rw.recipes.behaviour,
        rw.recipes.importance_sampling,
        rw.recipes.per_decision,
        rw.recipes.weighted_importance_sampling,
        rw.recipes.weighted_per_decision,
        BOUNDED,
    )
}
ask = partial(estimate, interval=student_t, level=0.95)


def parts_of(s: rw.Sample, sizes: list[int]):
    """A function that gives the sample in parts of so many episodes."""
    return lambda: (select(s, some) for some in torch.arange(len(s)).split(sizes))


@pytest.mark.parametrize("interval", [student_t, bootstrap])
def test_parts_give_the_numbers_of_the_whole(interval):
    s = sample([3, 1, 4, 2, 5, 9, 2, 6, 5, 3], 8)
    whole = estimate(parts_of(s, [10]), BY_PARTS, interval=interval, level=0.9)
    parts = estimate(parts_of(s, [2, 1, 4, 3]), BY_PARTS, interval=interval, level=0.9)
    assert whole.episodes == parts.episodes == 10
    assert list(whole.estimates) == list(parts.estimates) == list(BY_PARTS)
    for name, one in whole.estimates.items():
        other = parts.estimates[name]
        for field in ("value", "standard_error", "low", "high", "effective_sample_size"):
            assert getattr(other, field) == pytest.approx(
                getattr(one, field), rel=1e-9, nan_ok=True
            ), (name, field)
        assert one.episodes == other.episodes == 10


def test_estimates_are_those_of_loops_and_say_what_they_are():
    s = sample([3, 1, 4, 2, 5] * 8, 8)
    found = ask(parts_of(s, [40]), BY_PARTS).estimates
    for name, expected in by_loops(s).items():
        one = found[name]
        assert one.value == pytest.approx(expected, rel=1e-12)
        assert one.low < one.value < one.high
        assert (one.method, one.level) == (name, 0.95)
    w = s.log_trajectory.exp()
    kish = float(w.sum() ** 2 / (w**2).sum())
    assert found["per_decision"].effective_sample_size == pytest.approx(kish)
    assert math.isnan(found["behaviour"].effective_sample_size)


def test_an_estimator_that_does_not_apply_says_why_and_the_others_go_on():
    def picky(s: rw.Sample):
        if len(s) < 4:
            raise ValueError("too few episodes")
        return rw.recipes.behaviour.terms(s)

    s = sample([2] * 6)
    for sizes in ([6], [4, 2]):
        found = ask(parts_of(s, sizes), {"picky": picky, "plain": rw.recipes.behaviour.terms})
        refused = {} if sizes == [6] else {"picky": "too few episodes"}
        assert found.refusals == refused
        assert set(found.estimates) == {"picky", "plain"} - set(refused)


def test_doubts():
    even = ask(parts_of(sample([2] * 200, spread=0.05), [200]), BY_PARTS).estimates
    assert all(one.believable for one in even.values())
    uneven = ask(parts_of(sample([20] * 200, spread=1.0), [200]), BY_PARTS).estimates
    said = " ".join(uneven["weighted_per_decision"].warnings)
    assert "effective sample size" in said
    assert "k-hat" in said
    assert uneven["behaviour"].believable
    few = ask(parts_of(sample([2] * 10), [10]), BY_PARTS).estimates
    assert "cannot be judged" in " ".join(few["per_decision"].warnings)
    off = ask(parts_of(sample([1] * 500, spread=0.1, drift=0.4), [500]), BY_PARTS).estimates
    assert "mean weight is" in " ".join(off["per_decision"].warnings)


def test_weights_that_are_cut_leave_an_interval_of_something_else():
    s = sample([3, 1, 4, 2, 5] * 80, 8)
    largest = float(s.log_trajectory.exp().max())
    for maximum, cut in ((largest / 2, True), (largest * 1.001, False)):
        methods = {"truncated": BOUNDED.bind(maximum=maximum).terms}
        for sizes in ([400], [150, 250]):
            said = " ".join(ask(parts_of(s, sizes), methods).estimates["truncated"].warnings)
            count = int((s.log_trajectory.exp() > maximum).sum())
            assert (f"{count} of 400 weights were cut to {maximum:g}" in said) == cut
            assert ("only its lower end bounds the value" in said) == cut


def test_profiles_of_parts_are_that_of_the_whole():
    s = sample([3, 1, 4, 2, 5, 9], 8, spread=2.0)
    whole = WeightProfile.of(s)
    a, b = (WeightProfile.of(part) for part in parts_of(s, [2, 4])())
    merged = merge_profiles(a, b)
    assert merged is not None
    torch.testing.assert_close(merged.ess_by_time, whole.ess_by_time)
    assert torch.equal(merged.histogram, whole.histogram)
    assert whole.histogram.sum() == len(s)
    torch.testing.assert_close(
        whole.ess_by_time, rw.diagnostics.ess_by_time(s.log_prefix, s.segments)
    )
    assert merge_profiles(None, a) is None


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_an_ordered_map_keeps_the_order(workers, count):
    assert list(ordered_map(lambda x: x * x, range(count), workers=workers)) == [
        x * x for x in range(count)
    ]


def test_an_ordered_map_holds_no_more_items_than_it_must():
    taken, done = [], []

    def items():
        for i in range(20):
            taken.append(i)
            assert len(taken) - len(done) <= 5
            yield i

    for i in ordered_map(lambda x: x, items(), workers=3):
        done.append(i)
    assert done == list(range(20))


def test_an_ordered_map_passes_errors_on_and_leaves_no_thread():
    before = threading.active_count()

    def fail(x):
        if x == 3:
            raise ValueError("three")
        return x

    with pytest.raises(ValueError, match="three"):
        list(ordered_map(fail, range(9), workers=2))
    assert threading.active_count() == before


class Fixed(nn.Module):
    """A policy that gives what a function makes of the observations."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, observations):
        return self.f(observations)


def batch(actions: torch.Tensor, observations: torch.Tensor | None = None) -> Batch:
    count = len(actions)
    observations = torch.zeros(count, 2) if observations is None else observations
    return Batch(
        observations=observations,
        actions=actions,
        rewards=torch.ones(count, dtype=torch.float64),
        log_prob_behaviour=torch.full((count,), -0.7, dtype=torch.float64),
        policy_version=torch.zeros(count, dtype=torch.int64),
        segments=rw.Segments.packed([2, count - 2]),
        final_observations=observations[:2],
        terminated=torch.tensor([True, False]),
        truncated=torch.tensor([False, True]),
        episode=torch.tensor([7, 9]),
    )


def test_a_policy_is_evaluated_in_chunks_on_the_actions_that_were_logged():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    policy = Fixed(lambda x: Categorical(logits=logits.expand(len(x), 3)))
    actions = torch.tensor([0, 2, 1, 1, 2])
    found = log_prob(policy, batch(actions), at_once=2)
    torch.testing.assert_close(found, logits[0].log_softmax(0)[actions].double())
    log = Logged.of(batch(actions), policy, discount=0.5)
    assert log.sample.returns.tolist() == [1.5, 1.75]
    chosen = log.select(torch.tensor([1, 1, 0]))
    assert torch.equal(chosen.sample.log_prob_target, found[[2, 3, 4, 2, 3, 4, 0, 1]])
    assert chosen.sample.returns.tolist() == [1.75, 1.75, 1.5]
    assert chosen.batch.actions.tolist() == [1, 1, 2, 1, 1, 2, 0, 2]
    assert chosen.batch.episode.tolist() == [9, 9, 7]


def test_a_policy_of_another_space_is_refused_with_episode_and_step():
    two = Fixed(lambda x: Categorical(logits=torch.zeros(len(x), 2)))
    with pytest.raises(ValueError, match="2 actions, but the log holds action 5 in episode 9, st"):
        log_prob(two, batch(torch.tensor([0, 1, 1, 5])))
    gaussian = Fixed(lambda x: Independent(Normal(torch.zeros(len(x), 3), 1.0), 1))
    with pytest.raises(ValueError, match=r"actions have shape \[3\], those of the log \[\]"):
        log_prob(gaussian, batch(torch.tensor([0, 1, 1, 0])))
    wide = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="cannot be given the log's observations"):
        log_prob(wide, batch(torch.tensor([0, 1, 1, 0])))
    with pytest.raises(ValueError, match="returned Tensor"):
        act(nn.Linear(2, 2), torch.zeros(1, 2))
    normal = Fixed(lambda x: Normal(torch.zeros(len(x)), 1.0))
    with pytest.raises(ValueError, match="continuous, and those of the log are choices"):
        log_prob(normal, batch(torch.tensor([0, 1, 1, 0])))
    single = Fixed(lambda x: Categorical(logits=torch.zeros(2)))
    with pytest.raises(ValueError, match=r"distributions of shape \[\] for 4 observations"):
        log_prob(single, batch(torch.tensor([0, 1, 1, 0])))
    short = Fixed(lambda x: x.nothing)
    with pytest.raises(ValueError, match="has no attribute 'nothing'; is it a policy of this env"):
        log_prob(short, batch(torch.tensor([0, 1, 1, 0])))
    damaged = Fixed(lambda x: Categorical(logits=torch.full((len(x), 2), torch.nan)))
    with pytest.raises(ValueError, match=r"gives its distribution NaN.*damaged or has diverged"):
        log_prob(damaged, batch(torch.tensor([0, 1, 1, 0])))
    broken = Fixed(
        lambda x: Categorical(logits=torch.full((len(x), 2), torch.nan), validate_args=False)
    )
    with pytest.raises(ValueError, match="nan to the action of episode 7, step 0"):
        log_prob(broken, batch(torch.tensor([0, 1, 1, 0])))


def test_episodes_without_start_or_end_are_refused():
    from dataclasses import replace

    policy = Fixed(lambda x: Categorical(logits=torch.zeros(len(x), 2)))
    whole = batch(torch.tensor([0, 1, 1, 0]))
    unended = replace(whole, truncated=torch.tensor([False, False]))
    with pytest.raises(ValueError, match=r"episode 9 has no end.*step 1.*--unfinished"):
        Logged.of(unended, policy, discount=1.0)
    late = replace(whole, segments=rw.Segments.packed([2, 2], time_start=torch.tensor([0, 4])))
    with pytest.raises(ValueError, match="episode 9 begins at step 4"):
        Logged.of(late, policy, discount=1.0)
