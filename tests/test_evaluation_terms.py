"""The form that estimators share: values, totals of parts, contributions of episodes."""

from dataclasses import replace

import pytest
import torch
from evaluation_samples import by_loops, sample, select
from hypothesis import given, settings
from hypothesis import strategies as st

import reweigh as rw
from reweigh.core.terms import Terms, influence, merge, totals
from reweigh.evaluation.resampling import leave_one_out, resampled

CLASSIC = {
    recipe.name: recipe.terms
    for recipe in (
        rw.recipes.behaviour,
        rw.recipes.importance_sampling,
        rw.recipes.per_decision,
        rw.recipes.weighted_importance_sampling,
        rw.recipes.weighted_per_decision,
    )
}
truncated = rw.recipes.truncated_importance_sampling
EVERY = {
    **CLASSIC,
    "truncated": truncated.bind(lowest_return=-100.0).terms,
    "pareto_smoothed": rw.recipes.pareto_smoothed.terms,
}
BY_PARTS = {name: f for name, f in EVERY.items() if name != "pareto_smoothed"}
lengths = st.lists(st.integers(0, 6), min_size=2, max_size=12).filter(lambda x: sum(x) > 0)


def value(terms: Terms) -> float:
    return float(totals(terms).value)


@given(lengths=lengths, seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_classic_estimators_are_what_loops_say(lengths, seed):
    s = sample(lengths, seed)
    for name, expected in by_loops(s).items():
        assert value(CLASSIC[name](s)) == pytest.approx(expected, rel=1e-12, abs=1e-12), name


@given(lengths=lengths, seed=st.integers(0, 1000), cut=st.integers(1, 11))
@settings(max_examples=50, deadline=None)
def test_parts_merge_to_the_whole_in_any_order(lengths, seed, cut):
    s = sample(lengths, seed)
    every = torch.arange(len(s))
    parts = [select(s, some) for some in (every[:cut], every[cut:]) if len(some)]
    for name, f in BY_PARTS.items():
        whole = totals(f(s))
        if len(parts) == 2:
            for first, second in (parts, parts[::-1]):
                merged = merge(totals(f(first)), totals(f(second)))
                assert float(merged.value) == pytest.approx(float(whole.value), abs=1e-12), name
                torch.testing.assert_close(merged.log_sums, whole.log_sums)
                assert merged.units == len(s)
        joined = torch.cat([influence(f(part), whole) for part in parts])
        torch.testing.assert_close(joined, influence(f(s), whole), rtol=1e-10, atol=1e-10)
        again = Terms.concatenate([f(part) for part in parts])
        assert value(again) == pytest.approx(float(whole.value), abs=1e-12), name


@given(lengths=lengths, seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 0.1, 0.8]))
@settings(max_examples=50, deadline=None)
def test_a_contribution_is_what_the_others_leave_to_say(lengths, seed, spread):
    s = sample(lengths, seed, spread=spread)
    for f in CLASSIC.values():
        terms = f(s)
        whole = totals(terms)
        expected = len(s) * whole.value - (len(s) - 1) * leave_one_out(terms)
        torch.testing.assert_close(influence(terms, whole), expected, rtol=1e-6, atol=1e-7)


def test_ended_episodes_contribute_alike_by_series_and_time_by_time():
    """Some hold more than a hundredth of the weight, most of them do not."""
    s = sample([1, 30, 2, 0, 5, 29] * 60, 8, spread=0.4)
    terms = rw.recipes.weighted_per_decision.terms(s)
    whole = totals(terms)
    assert terms.weighted is not None
    last = s.segments.last(terms.weighted.log_weights) - whole.log_sums[-1]
    ended = s.segments.lengths < 30
    assert 0 < int((last[ended].exp() > 0.01).sum()) < 30
    expected = len(s) * whole.value - (len(s) - 1) * leave_one_out(terms)
    torch.testing.assert_close(influence(terms, whole), expected, rtol=1e-8, atol=1e-8)


def test_an_episode_with_all_the_weight_contributes_the_estimate():
    s = sample([3, 3, 3], 2)
    alone = s.log_prob_target.clone()
    alone[:3] += 100.0
    terms = rw.recipes.weighted_per_decision.terms(replace(s, log_prob_target=alone))
    whole = totals(terms)
    assert float(influence(terms, whole)[0]) == pytest.approx(float(whole.value), abs=1e-6)


def test_equal_policies_give_the_mean_return_and_its_standard_error():
    s = sample([3, 5, 2, 4], 1, spread=0.0)
    mean = float(s.returns.mean())
    for name, f in EVERY.items():
        terms = f(s)
        assert value(terms) == pytest.approx(mean, rel=1e-12), name
        contributions = influence(terms, totals(terms))
        torch.testing.assert_close(contributions.mean(), s.returns.mean())
        torch.testing.assert_close(contributions, s.returns)


def test_self_normalised_estimates_do_not_know_a_common_factor():
    s = sample([3, 5, 2, 4], 1)
    first = torch.where(s.segments.is_first, 5.0, 0.0)
    shifted = replace(s, log_prob_target=s.log_prob_target + first)
    for name in ("weighted_importance_sampling", "weighted_per_decision", "pareto_smoothed"):
        terms, moved = EVERY[name](s), EVERY[name](shifted)
        assert value(moved) == pytest.approx(value(terms), rel=1e-12)
        torch.testing.assert_close(
            influence(moved, totals(moved)), influence(terms, totals(terms)), rtol=1e-9, atol=1e-9
        )


def test_rewards_at_the_end_make_per_decision_and_trajectory_weights_one():
    s = sample([4, 4, 4], 2)
    s = replace(s, rewards=torch.where(s.segments.is_last, s.rewards, 0.0))
    per_decision, whole = rw.recipes.per_decision.terms(s), rw.recipes.importance_sampling.terms(s)
    assert value(per_decision) == pytest.approx(value(whole), rel=1e-12)
    weighted = rw.recipes.weighted_per_decision.terms(s)
    assert value(weighted) == pytest.approx(value(rw.recipes.weighted_importance_sampling.terms(s)))


def test_the_weight_of_an_ended_episode_goes_on():
    """Two episodes, one of which ended: normalised over the living alone it would be 10."""
    s = sample([1, 2], 0)
    zeros = torch.zeros(3, dtype=torch.float64)
    s = replace(s, rewards=torch.tensor([0.0, 0.0, 10.0]), discount=1.0)
    s = replace(s, log_prob_target=zeros, log_prob_behaviour=zeros)
    assert value(rw.recipes.weighted_per_decision.terms(s)) == 5.0


@pytest.mark.parametrize("drift", [-0.5, 0.5])
def test_ten_thousand_steps_overflow_nothing(drift):
    s = sample([10_000, 9_000, 10_000, 500], 0, spread=0.5, drift=drift, discount=0.999)
    for name in ("weighted_importance_sampling", "weighted_per_decision", "pareto_smoothed"):
        terms = EVERY[name](s)
        assert torch.isfinite(totals(terms).value), name
        assert influence(terms, totals(terms)).isfinite().all(), name
    equal = replace(s, log_prob_target=s.log_prob_behaviour)
    assert value(rw.recipes.per_decision.terms(equal)) == pytest.approx(float(equal.returns.mean()))


def test_an_action_that_the_target_never_takes_has_weight_0_and_no_nan():
    s = sample([3, 3], 4)
    never = s.log_prob_target.clone()
    never[1] = -torch.inf
    s = replace(s, log_prob_target=never)
    for name, f in EVERY.items():
        terms = f(s)
        assert influence(terms, totals(terms)).isfinite().all(), name
    # From time 1 on no weight is left, while an episode that ended before would have kept its own.
    later = replace(sample([1, 3, 3], 4), log_prob_target=torch.tensor([-torch.inf] * 7))
    later.log_prob_target[[1, 4]] = -1.0
    for name, f in EVERY.items():
        terms = f(later)
        assert influence(terms, totals(terms)).isfinite().all(), name
    first = float(later.rewards[1] * later.log_ratios[1].exp())
    first += float(later.rewards[4] * later.log_ratios[4].exp())
    first /= float(later.log_ratios[1].exp() + later.log_ratios[4].exp())
    assert value(rw.recipes.weighted_per_decision.terms(later)) == pytest.approx(first)


def test_truncation_bounds_what_a_term_can_be():
    s = sample([5] * 50, 5, spread=1.0)
    lowest = float(s.returns.min())
    terms = truncated.terms(s, maximum=2.0, lowest_return=lowest).plain
    assert terms.min() >= lowest
    assert terms.max() <= lowest + 2.0 * (s.returns.max() - lowest)
    with pytest.raises(ValueError, match="maximum must"):
        truncated.terms(s, maximum=0.0, lowest_return=lowest)
    with pytest.raises(ValueError, match=r"less than lowest_return, 0: .*--return-range"):
        truncated.terms(s)
    gains = replace(s, rewards=s.rewards.abs())
    whole = truncated.terms(gains, maximum=torch.inf)
    assert value(whole) == pytest.approx(value(rw.recipes.importance_sampling.terms(gains)))


@given(lengths=lengths, seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_leaving_one_out_is_the_estimate_of_the_others(lengths, seed):
    s = sample(lengths, seed)
    for name, f in CLASSIC.items():
        found = leave_one_out(f(s))
        for i in range(len(s)):
            others = torch.tensor([j for j in range(len(s)) if j != i])
            expected = value(f(select(s, others)))
            assert float(found[i]) == pytest.approx(expected, abs=1e-10), name


def test_resampling_is_the_estimate_of_the_drawn_episodes():
    s = sample([3, 0, 1, 4, 2, 6], 7)
    generator = torch.Generator().manual_seed(11)
    drawn = torch.randint(len(s), (20, len(s)), generator=generator)
    for name, f in CLASSIC.items():
        found = resampled(f(s), resamples=20, seed=11)
        expected = [value(f(select(s, episodes))) for episodes in drawn]
        assert found.tolist() == pytest.approx(expected, abs=1e-10), name


def test_resampling_in_blocks_of_time_and_of_resamples_changes_nothing():
    s = sample([3, 7, 1, 4], 7)
    terms = rw.recipes.weighted_per_decision.terms(s)
    torch.testing.assert_close(leave_one_out(terms, cells=8), leave_one_out(terms))
    assert len(resampled(terms, resamples=7, seed=0, cells=8)) == 7


def test_holes_and_padding_are_no_steps():
    lengths = [3, 1, 2]
    s = sample(lengths, 9)
    padded = rw.Segments.padded(lengths, 4)
    place = padded.existing

    def scattered(x):
        return torch.full((12,), torch.nan, dtype=x.dtype).index_copy(0, place, x)

    held = replace(
        s,
        rewards=scattered(s.rewards),
        log_prob_target=scattered(s.log_prob_target),
        log_prob_behaviour=scattered(s.log_prob_behaviour),
        segments=padded,
    )
    for name, f in EVERY.items():
        a, b = f(s), f(held)
        assert value(b) == pytest.approx(value(a), rel=1e-12), name
        torch.testing.assert_close(influence(b, totals(b)), influence(a, totals(a)))


def test_what_a_sample_refuses():
    s = sample([2, 2])
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\], got 1.5"):
        replace(s, discount=1.5)
    with pytest.raises(ValueError, match="rewards must have shape"):
        replace(s, rewards=s.rewards[:3])
    missing = replace(s, log_prob_behaviour=None)
    one = torch.where(s.segments.is_last & (s.segments.episode == 1), torch.nan, -1.0).double()
    with pytest.raises(ValueError, match="is nan at step 1 of episode 1"):
        replace(s, log_prob_behaviour=one)
    with pytest.raises(ValueError, match="--estimate-behaviour"):
        rw.recipes.per_decision.terms(missing)
    assert value(rw.recipes.behaviour.terms(missing)) == value(rw.recipes.behaviour.terms(s))
    with pytest.raises(ValueError, match="step 0 of episode 0"):
        replace(s, log_prob_behaviour=s.log_prob_behaviour.clone().fill_(-torch.inf))
