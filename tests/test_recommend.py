import json
import math
from dataclasses import replace
from functools import cache, cached_property

import pytest
import torch
from core_batches import ragged, scatter

import reweigh as rw
from reweigh.verify.golden import SHIPPED, Problem
from reweigh.verify.trajectories import enumerated

GOLDEN = json.loads(SHIPPED.read_text())["problems"]
DISTANCES = (0.2, 0.8, 1.4)
EPISODES = (10, 100, 1000)
OTHERS = [
    *(
        f"loss = rw.recipes.{name}(sample)"
        for name in ("reinforce", "step", "behaviour_continuation", "per_decision", "trajectory")
    ),
    *(
        f"loss = rw.recipes.truncated(rw.recipes.per_decision, maximum={c})(sample)"
        for c in (1.0, 2.0, 5.0, 20.0)
    ),
]


class World:
    """Every trajectory of a golden problem, with a behaviour at a distance from the target."""

    def __init__(self, file, distance, *, sources=("phi",)):
        problem = Problem.read(file)
        theta = problem.logits["theta"].detach()
        between = {x: theta + distance * (problem.logits[x] - theta) for x in sources}
        problem = replace(problem, logits=problem.logits | between)
        self.problem = problem
        self.all = enumerated(problem, list(sources), (1,) * len(sources))
        self.probability = self.all.probability

    def run(self, code, *, critic="theta"):
        """Each trajectory's gradient `[N, logits]`, from code that computes a loss."""
        case, theta = replace(self.all, critic=critic), self.problem.logits["theta"]
        log_probs = theta.detach().log_softmax(1)[case.states].requires_grad_()
        sample = replace(case.sample, log_prob_target=case.taken(log_probs))
        if len(case.counts) > 1:
            sample = sample.against(case.log_prob_sources, case.proportions)
        names = {
            "rw": rw,
            "sample": sample,
            "action_values": case.action_values,
            "values": (log_probs.exp() * case.all_action_values).sum(1),
            "bootstrap": case.bootstrap,
        }
        exec(code, names)
        (slope,) = torch.autograd.grad(-len(sample) * names["loss"], log_probs)
        slope = slope - log_probs.detach().exp() * slope.sum(1, keepdim=True)
        cell = case.segments.episode * len(theta) + case.states
        rows = slope.new_zeros(len(sample) * len(theta), theta.shape[1])
        return rows.index_add(0, cell, slope).reshape(len(sample), -1)

    @cached_property
    def truth(self):
        return self.probability @ self.run(OTHERS[3])

    @cache  # noqa: B019 - a world lives as long as a test
    def moments(self, code):
        """Squared bias, and variance of one trajectory's gradient."""
        gradients = self.run(code)
        mean = self.probability @ gradients
        variance = self.probability @ gradients.square().sum(1) - mean.square().sum()
        return float((mean - self.truth).square().sum()), float(variance)

    def error(self, code, episodes):
        bias, variance = self.moments(code)
        return math.sqrt(bias + variance / episodes)

    def batch(self, episodes, seed=0):
        """So many trajectories, drawn; and the steps that they are."""
        g = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.probability, episodes, replacement=True, generator=g)
        whole = self.all.sample
        lengths = whole.segments.lengths[drawn]
        segments = rw.Segments.packed(lengths)
        steps = whole.segments.start[drawn].repeat_interleave(lengths) + segments.offset
        target, behaviour = whole.log_prob_target.detach(), whole.log_prob_behaviour
        return rw.Sample(target[steps], behaviour[steps], segments), steps


def name_of(said):
    return said.recipe.name


@pytest.mark.parametrize("critic", ["theta", "critic"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file["name"])
def test_where_nothing_is_truncated_the_doubly_robust_code_is_unbiased_for_any_critic(file, critic):
    world = World(file, 0.1)
    said = rw.recommend(world.batch(2000)[0], critic=True)
    assert name_of(said) == "truncated_doubly_robust"
    mean = world.probability @ world.run(said.code, critic=critic)
    torch.testing.assert_close(mean, world.truth)


def test_a_good_critic_lowers_the_error_where_weights_are_truncated_too():
    world = World(GOLDEN[2], 0.8)
    batch, _ = world.batch(1000)
    alone, robust = rw.recommend(batch), rw.recommend(batch, critic=True)
    assert name_of(robust) == "truncated_doubly_robust"
    assert robust.maximum == alone.maximum == pytest.approx(math.sqrt(1000) / 2)
    assert world.error(robust.code, 1000) < 0.8 * world.error(alone.code, 1000)


def test_with_the_sources_log_probabilities_the_weights_are_the_mixtures():
    world = World(GOLDEN[2], 1.0, sources=("phi1", "phi2"))
    sample, steps = world.batch(500)
    balanced = sample.against(world.all.log_prob_sources[:, steps], world.all.proportions)
    alone, mixed = rw.recommend(sample), rw.recommend(balanced)
    assert name_of(mixed) == "truncated_per_decision"
    assert not any("sample.against" in sentence for sentence in mixed.would_change)
    assert any("sample.against" in sentence for sentence in alone.would_change)
    assert world.error(mixed.code, 500) <= world.error(alone.code, 500)
    ess = rw.diagnostics.effective_sample_size(sample.segments.last(balanced.log_prefix))
    assert f"{float(ess):.3g} at the last" in str(mixed).replace("\n", " ")


def test_the_words_contain_the_numbers():
    world = World(GOLDEN[2], 1.0)
    sample, _ = world.batch(400)
    said, segments, prefix = rw.recommend(sample), sample.segments, sample.log_prefix
    last = segments.last(prefix)
    summary = rw.diagnostics.read(rw.diagnostics.weight_health(last)).total
    by_time = rw.diagnostics.ess_by_time(prefix, segments)
    words = " ".join(str(said).split())
    for number in (
        "Of 400 episodes",
        f"{segments.lengths.double().mean():.1f} steps",
        f"{by_time.median():.3g} at the median time",
        f"{summary.effective_sample_size:.3g} at the last",
        f"{summary.mean:.3g} ± {summary.standard_error:.2g}",
        f"k-hat is {rw.weights.pareto_k(last):.2f}",
        f"{rw.weights.k_hat_threshold(400):.2f}",
        f"{(prefix > math.log(10)).double().mean():.2%}",
        "= 10",
        "maximum=10)",
    ):
        assert number in words, number
    assert name_of(said) == "truncated_per_decision" and said.maximum == 10.0


def test_nothing_over_the_bound_is_unbiased():
    world = World(GOLDEN[1], 0.1)
    said = rw.recommend(world.batch(400)[0])
    assert name_of(said) == "truncated_per_decision" and said.maximum == 10.0 and not said.collect
    assert "No weight exceeds max(1, √N / 2) = 10" in " ".join(str(said).split())
    torch.testing.assert_close(world.probability @ world.run(said.code), world.truth)


def weighed(sample, behaviour):
    return replace(sample, log_prob_behaviour=behaviour)


@pytest.mark.parametrize("rounding", [0.0, 1e-6])
def test_on_policy_data_needs_no_weights(rounding):
    sample, _ = World(GOLDEN[1], 1.0).batch(30)
    target = sample.log_prob_target
    said = rw.recommend(weighed(sample, target + rounding))
    assert name_of(said) == "reinforce" and not said.collect
    assert [w for w in said.warnings if "bit for bit" not in w] == []
    assert bool(said.warnings) == (rounding == 0.0)
    assert "no weights are needed" in " ".join(str(said).split())
    assert name_of(rw.recommend(weighed(sample, target + 0.02))) != "reinforce"


def flips(episodes, horizon, log_odds, *, sampled_at=0.0):
    """Coins of one log-odds sampled, a target of another."""
    g = torch.Generator().manual_seed(0)
    odds = torch.tensor([log_odds, sampled_at], dtype=torch.float64)
    heads = torch.rand(episodes * horizon, generator=g) < odds[1].sigmoid()
    target, behaviour = torch.where(
        heads, odds.unsqueeze(1).sigmoid().log(), (-odds.unsqueeze(1)).sigmoid().log()
    )
    return rw.Sample(target, behaviour, rw.Segments.packed([horizon] * episodes))


def test_long_horizons_of_near_policies_fall_back_on_single_ratios():
    said = rw.recommend(flips(500, 300, 0.5))
    assert name_of(said) == "step" and said.collect
    assert "effective sample size is 94% of the steps" in " ".join(str(said).split())
    assert str(said).startswith("Collect fresh episodes; until then use step.")
    robust = rw.recommend(flips(500, 300, 0.5), critic=True)
    assert name_of(robust) == "truncated_doubly_robust" and robust.collect
    few = rw.recommend(flips(50, 300, 0.5))
    assert name_of(few) == "truncated_per_decision" and few.collect


def test_far_policies_say_collect():
    said = rw.recommend(flips(500, 40, -2.0, sampled_at=2.0))
    assert said.collect and name_of(said) == "truncated_per_decision"
    assert not said.warnings  # what is missing from uneven weights proves nothing
    assert any("nearer" in sentence for sentence in said.would_change)


def test_a_batch_that_the_target_would_never_sample_says_collect_however_even_it_is():
    sample = flips(200, 5, 0.0)
    target = sample.log_prob_target - 1 + 0.2 * torch.rand(1000).double()
    said = rw.recommend(replace(sample, log_prob_target=target))
    assert said.collect
    assert any("do not belong to these actions" in sentence for sentence in said.warnings)


@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_log_probabilities_of_other_actions_are_warned_of(shift):
    sample = flips(200, 5, 0.4)
    assert not rw.recommend(sample).warnings
    shifted = replace(sample, log_prob_target=sample.log_prob_target + shift)
    (warning,) = rw.recommend(shifted).warnings
    ratio = shifted.log_ratios.exp()
    assert f"{ratio.mean():.4g} ± {ratio.std(correction=0) / 1000**0.5:.2g}" in warning
    assert "Warning: " in str(rw.recommend(shifted))


def test_a_low_mean_of_uneven_ratios_proves_nothing():
    sample = flips(200, 5, 0.0)
    rare = torch.arange(1000) % 10 == 0
    ratios = torch.where(rare, 3.0, 0.1).double().log()
    assert ratios.exp().mean() < 0.5
    target = sample.log_prob_behaviour + ratios
    assert not rw.recommend(replace(sample, log_prob_target=target)).warnings


def test_few_effective_episodes_say_collect_though_their_mean_weight_is_right():
    sample = flips(500, 200, 0.4)
    last = sample.segments.last(sample.log_prefix)
    summary = rw.diagnostics.read(rw.diagnostics.weight_health(last)).total
    assert summary.mean > 0.2 and summary.effective_sample_size < 10
    assert rw.recommend(sample).collect


def test_one_episode():
    said = rw.recommend(flips(1, 6, 0.4))
    assert name_of(said) == "truncated_per_decision" and said.maximum == 1.0
    assert "Of 1 episode of 6.0 steps" in " ".join(str(said).split())
    assert not said.collect
    assert rw.recommend(flips(1, 60, 2.0)).collect


def test_few_episodes_are_not_blamed_for_being_few():
    said = rw.recommend(flips(8, 3, 0.5))
    assert not said.collect


def test_an_empty_batch():
    nothing = torch.zeros(0)
    said = rw.recommend(rw.Sample(nothing, nothing, rw.Segments.packed([0, 0])))
    assert said.recipe is None and said.code == "" and said.collect
    assert str(said) == "Collect fresh episodes. The batch holds no step."


@pytest.mark.parametrize(("critic", "recipe"), [(False, "step"), (True, "impala")])
def test_fragments_get_single_ratios(critic, recipe):
    segments = rw.Segments.packed([3] * 4, time_start=torch.tensor([0, 0, 5, 0]))
    said = rw.recommend(replace(flips(4, 3, 0.4), segments=segments), critic=critic)
    assert name_of(said) == recipe and "Join the fragments" in said.would_change[0]
    world = World(GOLDEN[1], 0.5)
    assert world.run(said.code).isfinite().all()


def test_actions_that_the_target_never_takes():
    sample = flips(300, 4, 0.3)
    target = sample.log_prob_target.clone()
    target[::7] = -torch.inf
    said = rw.recommend(replace(sample, log_prob_target=target))
    assert "nan" not in str(said)
    nowhere = torch.full_like(target, -torch.inf)
    never = rw.recommend(replace(sample, log_prob_target=nowhere))
    assert never.collect and never.warnings and "nan" not in never.code


def test_layout_and_garbage_change_nothing():
    b = ragged([4, 0, 6, 1], 1)
    moved, _ = scatter(b, 2)
    assert str(rw.recommend(b.sample)) == str(rw.recommend(moved.sample))


def test_a_behaviour_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="log-probabilities are missing"):
        rw.recommend(weighed(flips(3, 2, 0.3), None))


def test_log_probabilities_that_were_computed_again_are_warned_of():
    sample = flips(200, 50, 0.4)
    said = rw.recommend(weighed(sample, sample.log_prob_target.clone()))
    (warning,) = said.warnings
    assert "bit for bit" in warning and name_of(said) == "reinforce"


def test_no_gradient_is_kept():
    sample = flips(30, 2, 0.3)
    target = sample.log_prob_target.clone().requires_grad_()
    rw.recommend(replace(sample, log_prob_target=target))
    assert target.grad is None


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file["name"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_error_is_close_to_that_of_the_best_choice_in_hindsight(file, distance):
    world = World(file, distance)
    for episodes in EPISODES:
        said = rw.recommend(world.batch(episodes)[0])
        best = min(world.error(code, episodes) for code in OTHERS)
        assert world.error(said.code, episodes) <= 1.25 * best, said
