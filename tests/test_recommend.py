import json
import math
from dataclasses import replace
from functools import cache, cached_property

import pytest
import torch
from core_batches import ragged, scatter
from reweigh.verify.samples import enumerated

import reweigh as rw
from reweigh.verify.golden import SHIPPED, Problem

GOLDEN = json.loads(SHIPPED.read_text())["problems"]
DISTANCES = (0.2, 0.8, 1.4)
EPISODES = (10, 100, 1000)
PER_DECISION = """
log_ratios = rw.log_ratios(log_prob_target, log_prob_behaviour, segments)
log_weights = rw.weights.prefix(log_ratios, segments)
log_weights = rw.weights.truncate(log_weights, segments, maximum={maximum}).log_weights
continuation = rw.returns.weighted_reward_to_go(rewards, log_weights, segments, discount=discount)
from_start = rw.returns.discount_from_start(segments, discount=discount)
objective = rw.surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
loss = rw.loss(objective, segments)"""
OTHERS = [
    "loss = rw.recipes.reinforce(log_prob_target, rewards, segments, discount=discount)",
    *(
        f"loss = rw.recipes.{name}(log_prob_target, log_prob_behaviour, rewards, segments, "
        "discount=discount)"
        for name in ("step", "seed", "per_decision", "trajectory")
    ),
    *(PER_DECISION.format(maximum=c) for c in (1.0, 2.0, 5.0, 20.0)),
]


class World:
    """Every trajectory of a golden problem, with a behaviour at a distance from the target."""

    def __init__(self, file, distance, *, sources=("phi",)):
        problem = Problem.read(file)
        theta = problem.logits["theta"].detach()
        between = {x: theta + distance * (problem.logits[x] - theta) for x in sources}
        problem = replace(problem, logits=problem.logits | between)
        shares = torch.full((len(sources),), 1 / len(sources), dtype=torch.float64)
        self.problem = problem
        self.all, self.probability = enumerated(
            problem, list(sources), shares, horizon=problem.horizon
        )
        self.behaviour = (self.all.log_prob - self.all.log_ratios).detach()

    def run(self, code, *, critic="theta"):
        """Each trajectory's gradient `[N, logits]`, from code that computes a loss."""
        s, theta = self.all, self.problem.logits["theta"]
        log_probs = theta.detach().log_softmax(1)[s.states].requires_grad_()
        action_values = s.action_values(critic)
        names = {
            "rw": rw,
            "segments": s.segments,
            "rewards": s.rewards,
            "discount": s.discount,
            "log_probs": log_probs,
            "log_prob_target": log_probs.gather(1, s.actions.unsqueeze(1)).squeeze(1),
            "log_prob_behaviour": self.behaviour,
            "log_prob_sources": s.log_prob_sources,
            "proportions": s.proportions,
            "actions": s.actions,
            "action_values": action_values,
            "values": (log_probs.detach().exp() * action_values).sum(1),
            "bootstrap": torch.zeros(len(s.segments), dtype=torch.float64),
        }
        exec(code, names)
        (slope,) = torch.autograd.grad(-len(s.segments) * names["loss"], log_probs)
        slope = slope - log_probs.detach().exp() * slope.sum(1, keepdim=True)
        cell = s.segments.episode * len(theta) + s.states
        rows = slope.new_zeros(len(s.segments) * len(theta), theta.shape[1])
        return rows.index_add(0, cell, slope).reshape(len(s.segments), -1)

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
        """Arguments of `recommend`, and the segments: so many trajectories, drawn."""
        g = torch.Generator().manual_seed(seed)
        drawn = torch.multinomial(self.probability, episodes, replacement=True, generator=g)
        s = self.all.segments
        lengths = s.lengths[drawn]
        segments = rw.Segments.packed(lengths)
        steps = s.start[drawn].repeat_interleave(lengths) + segments.offset
        target = self.all.log_prob.detach()
        return target[steps], self.behaviour[steps], segments, steps


@pytest.mark.parametrize("critic", ["theta", "critic"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file["name"])
def test_where_nothing_is_truncated_the_doubly_robust_code_is_unbiased_for_any_critic(file, critic):
    world = World(file, 0.1)
    *batch, _ = world.batch(2000)
    said = rw.recommend(*batch, critic=True)
    assert said.recipe == "doubly_robust truncated"
    mean = world.probability @ world.run(said.code, critic=critic)
    torch.testing.assert_close(mean, world.truth)


def test_a_good_critic_lowers_the_error_where_weights_are_truncated_too():
    world = World(GOLDEN[2], 0.8)
    *batch, _ = world.batch(1000)
    alone, robust = rw.recommend(*batch), rw.recommend(*batch, critic=True)
    assert robust.recipe == "doubly_robust truncated"
    assert robust.maximum == alone.maximum == pytest.approx(math.sqrt(1000) / 2)
    assert world.error(robust.code, 1000) < 0.8 * world.error(alone.code, 1000)


def test_with_the_sources_log_probabilities_the_weights_are_the_mixtures():
    world = World(GOLDEN[2], 1.0, sources=("phi1", "phi2"))
    target, behaviour, segments, steps = world.batch(500)
    sources, shares = world.all.log_prob_sources[:, steps], world.all.proportions
    alone = rw.recommend(target, behaviour, segments)
    mixed = rw.recommend(target, behaviour, segments, log_prob_sources=sources, proportions=shares)
    assert mixed.recipe.startswith("balance_heuristic")
    assert not any("log_prob_sources" in sentence for sentence in mixed.would_change)
    assert any("log_prob_sources" in sentence for sentence in alone.would_change)
    assert world.error(mixed.code, 500) <= world.error(alone.code, 500)
    balanced = rw.weights.balance_heuristic(target, sources, shares, segments)
    ess = rw.diagnostics.effective_sample_size(segments.last(balanced))
    assert f"{float(ess):.3g} at the last" in str(mixed).replace("\n", " ")


def test_the_words_contain_the_numbers():
    world = World(GOLDEN[2], 1.0)
    target, behaviour, segments, _ = world.batch(400)
    said = rw.recommend(target, behaviour, segments)
    prefix = rw.weights.prefix(rw.log_ratios(target, behaviour, segments), segments)
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
    assert said.recipe == "per_decision truncated" and said.maximum == 10.0


def test_nothing_over_the_bound_is_unbiased():
    world = World(GOLDEN[1], 0.1)
    *batch, _ = world.batch(400)
    said = rw.recommend(*batch)
    assert said.recipe == "per_decision truncated" and said.maximum == 10.0 and not said.collect
    assert "No weight exceeds max(1, √N / 2) = 10" in " ".join(str(said).split())
    torch.testing.assert_close(world.probability @ world.run(said.code), world.truth)


@pytest.mark.parametrize("rounding", [0.0, 1e-6])
def test_on_policy_data_needs_no_weights(rounding):
    target, _, segments, _ = World(GOLDEN[1], 1.0).batch(30)
    said = rw.recommend(target, target + rounding, segments)
    assert said.recipe == "reinforce" and not said.collect and not said.warnings
    assert "no weights are needed" in " ".join(str(said).split())
    assert rw.recommend(target, target + 0.02, segments).recipe != "reinforce"


def flips(episodes, horizon, log_odds, *, sampled_at=0.0):
    """Coins of one log-odds sampled, a target of another."""
    g = torch.Generator().manual_seed(0)
    odds = torch.tensor([log_odds, sampled_at], dtype=torch.float64)
    heads = torch.rand(episodes * horizon, generator=g) < odds[1].sigmoid()
    target, behaviour = torch.where(
        heads, odds.unsqueeze(1).sigmoid().log(), (-odds.unsqueeze(1)).sigmoid().log()
    )
    return target, behaviour, rw.Segments.packed([horizon] * episodes)


def test_long_horizons_of_near_policies_fall_back_on_single_ratios():
    said = rw.recommend(*flips(500, 300, 0.5))
    assert said.recipe == "step" and said.collect
    assert "effective sample size is 94% of the steps" in " ".join(str(said).split())
    assert str(said).startswith("Collect fresh episodes; until then use step.")
    robust = rw.recommend(*flips(500, 300, 0.5), critic=True)
    assert robust.recipe == "doubly_robust truncated" and robust.collect
    few = rw.recommend(*flips(50, 300, 0.5))
    assert few.recipe == "per_decision truncated" and few.collect


def test_far_policies_say_collect():
    said = rw.recommend(*flips(500, 40, -2.0, sampled_at=2.0))
    assert said.collect and said.recipe == "per_decision truncated"
    assert not said.warnings  # what is missing from uneven weights proves nothing
    assert any("nearer" in sentence for sentence in said.would_change)


def test_a_batch_that_the_target_would_never_sample_says_collect_however_even_it_is():
    target, behaviour, segments = flips(200, 5, 0.0)
    said = rw.recommend(target - 1 + 0.2 * torch.rand(1000).double(), behaviour, segments)
    assert said.collect
    assert any("do not belong to these actions" in sentence for sentence in said.warnings)


@pytest.mark.parametrize("shift", [-0.2, 0.2])
def test_log_probabilities_of_other_actions_are_warned_of(shift):
    target, behaviour, segments = flips(200, 5, 0.4)
    assert not rw.recommend(target, behaviour, segments).warnings
    (warning,) = rw.recommend(target + shift, behaviour, segments).warnings
    ratio = (target + shift - behaviour).exp()
    assert f"{ratio.mean():.4g} ± {ratio.std(correction=0) / 1000**0.5:.2g}" in warning
    assert "Warning: " in str(rw.recommend(target + shift, behaviour, segments))


def test_a_low_mean_of_uneven_ratios_proves_nothing():
    _, behaviour, segments = flips(200, 5, 0.0)
    rare = torch.arange(1000) % 10 == 0
    ratios = torch.where(rare, 3.0, 0.1).double().log()
    assert ratios.exp().mean() < 0.5
    assert not rw.recommend(behaviour + ratios, behaviour, segments).warnings


def test_few_effective_episodes_say_collect_though_their_mean_weight_is_right():
    target, behaviour, segments = flips(500, 200, 0.4)
    last = segments.last(rw.weights.prefix(rw.log_ratios(target, behaviour, segments), segments))
    summary = rw.diagnostics.read(rw.diagnostics.weight_health(last)).total
    assert summary.mean > 0.2 and summary.effective_sample_size < 10
    assert rw.recommend(target, behaviour, segments).collect


def test_one_episode():
    said = rw.recommend(*flips(1, 6, 0.4))
    assert said.recipe == "per_decision truncated" and said.maximum == 1.0
    assert "Of 1 episode of 6.0 steps" in " ".join(str(said).split())
    assert not said.collect
    far = flips(1, 60, 2.0)
    assert rw.recommend(*far).collect


def test_few_episodes_are_not_blamed_for_being_few():
    said = rw.recommend(*flips(8, 3, 0.5))
    assert not said.collect


def test_an_empty_batch():
    nothing = torch.zeros(0)
    said = rw.recommend(nothing, nothing, rw.Segments.packed([0, 0]))
    assert said.recipe == "nothing" and said.code == "" and said.collect
    assert str(said) == "Collect fresh episodes. The batch holds no step."


@pytest.mark.parametrize(("critic", "recipe"), [(False, "step"), (True, "impala")])
def test_fragments_get_single_ratios(critic, recipe):
    target, behaviour, _ = flips(4, 3, 0.4)
    segments = rw.Segments.packed([3] * 4, time_start=torch.tensor([0, 0, 5, 0]))
    said = rw.recommend(target, behaviour, segments, critic=critic)
    assert said.recipe == recipe and "Join the fragments" in said.would_change[0]
    world = World(GOLDEN[1], 0.5)
    assert world.run(said.code).isfinite().all()


def test_actions_that_the_target_never_takes():
    target, behaviour, segments = flips(300, 4, 0.3)
    target[::7] = -torch.inf
    said = rw.recommend(target, behaviour, segments)
    assert "nan" not in str(said)
    never = rw.recommend(torch.full_like(target, -torch.inf), behaviour, segments)
    assert never.collect and never.warnings and "nan" not in str(never.recipe)


def test_layout_and_garbage_change_nothing():
    b = ragged([4, 0, 6, 1], 1)
    moved, _ = scatter(b, 2)
    assert rw.recommend(b.target, b.behaviour, b.segments) == rw.recommend(
        moved.target, moved.behaviour, moved.segments
    )


def test_sources_and_proportions_belong_together():
    target, behaviour, segments = flips(3, 2, 0.3)
    with pytest.raises(ValueError, match="belong together"):
        rw.recommend(target, behaviour, segments, log_prob_sources=target.unsqueeze(0))


def test_no_gradient_is_kept():
    target, behaviour, segments = flips(30, 2, 0.3)
    target.requires_grad_()
    rw.recommend(target, behaviour, segments)
    assert target.grad is None


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file["name"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_error_is_close_to_that_of_the_best_choice_in_hindsight(file, distance):
    world = World(file, distance)
    for episodes in EPISODES:
        *batch, _ = world.batch(episodes)
        said = rw.recommend(*batch)
        best = min(world.error(code, episodes) for code in OTHERS)
        assert world.error(said.code, episodes) <= 1.25 * best, said
