import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
from core_batches import GAMMA, STEPS, close, ragged, scatter
from recipe_table import (
    INPUTS,
    KNOBS,
    critic_rows,
    group,
    grouped,
    knobs,
    loss,
    own_data,
    pairs,
    plain_coefficients,
)

import reweigh as rw
from reweigh import recipes
from reweigh.core import advantages, divergences, weights
from reweigh.verify.golden import SHIPPED, Problem, tensor
from reweigh.verify.trajectories import enumerated, logged, logged_mixture

GOLDEN = json.loads(SHIPPED.read_text())
PROBLEMS = pytest.mark.parametrize("file", GOLDEN["problems"], ids=lambda file: file["name"])
EVERY = pytest.mark.parametrize("name", INPUTS)
SELF_NORMALISED = {
    *("weighted_importance_sampling", "weighted_per_decision", "weighted_doubly_robust"),
    "pareto_smoothed",
}
TOKENS = ("dapo", "cispo", "tis", "icepop", "decoupled_ppo")
GROUPS = ("grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo")


def gradient(loss, leaf):
    if not loss.requires_grad:
        return torch.zeros_like(leaf)
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def differentiated(b):
    """The same steps, the target a leaf."""
    return replace(b, target=b.target.clone().requires_grad_())


@EVERY
def test_on_its_own_data_a_recipe_is_the_plain_policy_gradient(name):
    b = own_data([4, 3, 6, 1], 0)
    want = plain_coefficients(name, b)
    if want is not None:
        close(gradient(loss(name, b), b.target), -want)


def test_every_recipe_is_in_the_table():
    assert set(recipes.ALL) == set(INPUTS)
    assert set(recipes.VALUES) == {
        name for name, recipe in recipes.ALL.items() if isinstance(recipe, recipes.ValueRecipe)
    }
    assert all(getattr(rw.recipes, name) is recipe for name, recipe in recipes.ALL.items())


@EVERY
def test_a_recipe_says_what_it_is(name):
    recipe, words = recipes.ALL[name], recipes.ALL[name].__doc__
    assert words.split("\n")[0].count("`") >= 2, "a formula"
    assert "Returns:" in words
    assert "ias" in words or "expectation" in words or "onsistent" in words, "unbiased for what?"
    assert repr(recipe).startswith(f"<recipe {name}(sample") and str(recipe.expectation) in repr(
        recipe
    )
    assert recipe.name == name


@EVERY
def test_a_recipe_travels_to_another_process(name):
    recipe = recipes.ALL[name]
    assert pickle.loads(pickle.dumps(recipe)) is recipe
    b = ragged([4, 2, 6, 1], 1)
    bound = pickle.loads(pickle.dumps(recipe.bind(**KNOBS.get(name, {}))))
    other = {} if name in KNOBS and name != "geppo" else KNOBS.get(name, {})
    assert bound.name == name and bound.expectation == recipe.expectation
    if name not in ("power_mean", "geppo"):
        close(bound(b.sample, *INPUTS[name](b), **other), loss(name, b))


def test_a_truncated_recipe_travels_too():
    b = ragged([4, 2, 6, 1], 1)
    recipe = recipes.truncated(recipes.per_decision, maximum=1.1)
    again = pickle.loads(pickle.dumps(recipe))
    assert again.name == "truncated_per_decision" and again.expectation == recipes.BIASED
    close(again(b.sample), recipe(b.sample))
    assert again(b.sample) != recipes.per_decision(b.sample)


def test_a_bound_knob_can_be_given_again():
    b = ragged([4, 2, 6, 1], 1)
    narrow = recipes.ppo.bind(clip=0.1).bind(clip_high=0.3)
    found = narrow(b.sample, b.advantages)
    close(found, recipes.ppo(b.sample, b.advantages, clip=0.1, clip_high=0.3))
    close(narrow(b.sample, b.advantages, clip=0.2), narrow.bind(clip=0.2)(b.sample, b.advantages))


def test_a_knob_that_a_recipe_does_not_have_is_refused():
    with pytest.raises(ValueError, match="ppo has no knob maximum; it has clip, clip_high"):
        recipes.ppo.bind(maximum=2.0)
    with pytest.raises(ValueError, match="reinforce has no knob clip; it has none"):
        recipes.reinforce.bind(clip=0.2)


@EVERY
def test_every_layout_gives_the_same_loss_and_gradient(name):
    b = ragged([4, 0, 6, 1], 1)
    moved, positions = scatter(b, 2)
    b, moved = differentiated(b), differentiated(moved)
    here, there = loss(name, b), loss(name, moved)
    close(there.detach(), here.detach())
    found = gradient(there, moved.target)
    close(found[positions], gradient(here, b.target))
    assert found.isfinite().all() and int((found != 0).sum()) <= len(positions)


def padded(b, horizon):
    """The same episodes as rows `[B, T]`, with garbage behind them."""
    mask = torch.arange(horizon) < b.segments.lengths.unsqueeze(1)

    def lay_out(x):
        rows = torch.full((*x.shape[:-1], mask.numel()), torch.nan, dtype=torch.float64)
        return rows.index_copy(-1, mask.flatten().nonzero().squeeze(1), x)

    moved = {name: lay_out(getattr(b, name)) for name in (*STEPS, "sources")}
    return replace(b, segments=rw.Segments.masked(mask), **moved), mask


@EVERY
def test_a_padded_batch_gives_the_same_in_its_own_shape(name):
    packed = ragged([4, 2, 6, 1], 1)
    b, mask = padded(packed, 7)

    def rows(x):
        per_step = isinstance(x, torch.Tensor) and x.shape == b.target.shape
        return x.reshape(mask.shape) if per_step else x

    s = b.sample
    sample = rw.Sample(
        rows(b.target), rows(b.behaviour), b.segments, rows(b.rewards), discount=GAMMA
    )
    inputs = [rows(x) for x in INPUTS[name](b)] if name != "acer" else INPUTS[name](b)
    named = {key: rows(x) for key, x in knobs(name, b).items()}
    recipe = recipes.ALL[name]
    close(recipe(sample, *inputs, **named), loss(name, packed))
    if isinstance(recipe, recipes.GradientRecipe) and name != "pois":
        objective = recipe.objective(sample, *inputs, **named)
        assert objective.shape == mask.shape and bool((objective[~mask] == 0).all())
        flat = recipe.objective(s, *INPUTS[name](b), **knobs(name, b))
        close(objective.flatten(), flat)


@EVERY
def test_steps_that_are_not_trained_on_keep_their_ratio_and_nothing_else(name):
    b = ragged([4, 2, 6, 1], 3)
    trained = torch.arange(13) % 3 != 1
    leaf = b.target.clone().requires_grad_()
    sample = replace(b.sample, log_prob_target=leaf)
    partly = replace(sample, trained=trained)
    inputs, named, recipe = INPUTS[name](b), knobs(name, b), recipes.ALL[name]
    divisor = {} if name == "pois" or name in SELF_NORMALISED else {"divisor": 5.0}
    whole = gradient(recipe(sample, *inputs, **named, **divisor), leaf)
    found = gradient(recipe(partly, *inputs, **named, **divisor), leaf)
    assert bool((found[~trained] == 0).all())
    if name in ("grpo", "gspo"):  # by the trained tokens of an answer
        spread = b.segments.spread
        counts = b.segments.lengths.double() / partly.trained_steps
        whole = whole * spread(counts)
    if name == "gspo":  # the answer's ratio has a gradient at every token that is trained on
        close(found[trained].sum(), found.sum())
    else:
        close(found[trained], whole[trained])
    if isinstance(recipe, recipes.GradientRecipe) and name != "pois":
        assert bool((recipe.objective(partly, *inputs, **named)[~trained] == 0).all())
    close(
        recipe(replace(sample, trained=torch.ones(13).bool()), *inputs, **named).detach(),
        recipe(sample, *inputs, **named).detach(),
    )


@EVERY
def test_behaviour_rewards_and_critics_are_constants(name):
    b = ragged([4, 2, 6, 1], 3)
    constants = ["behaviour", "rewards", "values", "advantages", "sources", "bootstrap"]
    # The bound of POIS differentiates a divergence, which the table makes of the values; of a
    # critic, the recipe differentiates `values`, which the table makes of its rows.
    if name in ("pois", "doubly_robust", "weighted_doubly_robust"):
        constants.remove("values")
    leaves = {c: getattr(b, c).clone().requires_grad_() for c in constants}
    total = loss(name, replace(differentiated(b), **leaves))
    if not total.requires_grad:
        return
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    assert all(g is None or bool((g == 0).all()) for g in found)


@EVERY
def test_float32_gives_the_same_to_float32(name):
    b = ragged([4, 2, 6, 3], 4)
    fields = (*STEPS, "sources", "bootstrap")
    half = replace(b, **{f: getattr(b, f).float() for f in fields})
    found = loss(name, half)
    assert found.dtype == torch.float64
    close(found, loss(name, b), 2e-5)


@pytest.mark.parametrize("name", recipes.VALUES)
def test_the_loss_of_a_value_is_its_negative_estimate(name):
    b = ragged([4, 2, 6, 1], 3)
    recipe, inputs, named = recipes.ALL[name], INPUTS[name](b), knobs(name, b)
    close(-recipe.estimate(b.sample, *inputs, **named), loss(name, b))
    assert len(recipe.terms(b.sample, *inputs, **named)) == 4


def extremes(b, extreme):
    """Every third step `extreme` nats nearer to the target than to the behaviour, or farther."""
    third = torch.arange(len(b.target)) % 3 == 0
    return differentiated(
        replace(
            b,
            behaviour=torch.where(third, -max(extreme, 0.0) - 1.0, b.behaviour),
            target=torch.where(third, -max(-extreme, 0.0) - 1.0, b.target),
        )
    )


BOUNDED = (
    *("impala", "acer", "cispo", "topr", "icepop", "power_mean", "balance_heuristic"),
    *("weighted_importance_sampling", "weighted_per_decision", "truncated_importance_sampling"),
    "pareto_smoothed",
)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_recipes_stay_finite_at_any_ratio(name, extreme):
    b = extremes(ragged([4, 2, 6, 3], 5), extreme)
    total = loss(name, b)
    assert total.isfinite() and gradient(total, b.target).isfinite().all()


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("name", [name for name in INPUTS if name != "awr"])  # it imitates
def test_where_there_is_nothing_to_weigh_the_weight_does_not_matter(name, extreme):
    """No reward, no advantage, a critic of 0: the loss is 0, whatever the ratios."""
    b = ragged([4, 2, 6, 3], 24)
    zero = {x: 0 * getattr(b, x) for x in ("rewards", "values", "advantages", "bootstrap")}
    b = extremes(replace(b, **zero), extreme)
    other = {"lowest_return": 0.0} if name == "truncated_importance_sampling" else {}
    total = loss(name, b, **other)
    assert total.item() == 0.0
    assert bool((gradient(total, b.target) == 0).all())


@pytest.mark.parametrize("name", ["per_decision", "doubly_robust", "balance_heuristic"])
def test_a_reward_before_the_products_overflow_is_exact(name):
    b = ragged([400], 25)
    behaviour = torch.full((400,), -5.0, dtype=torch.float64)
    rewards = torch.zeros(400, dtype=torch.float64)
    rewards[1] = 2.0
    b = replace(
        b,
        behaviour=behaviour,
        sources=behaviour.expand(3, -1),
        target=(behaviour + 3.0).requires_grad_(),
        rewards=rewards,
        values=0 * rewards,
        advantages=0 * rewards,
    )
    want = torch.zeros(400, dtype=torch.float64)
    want[:2] = GAMMA * 2.0 * math.exp(6.0)
    close(-gradient(loss(name, b), b.target), want, 1e-9)


def test_an_action_outside_the_support_may_have_any_value():
    b = ragged([3], 26)
    rows = torch.tensor([[0.5, 0.5, 0.0]] * 3).log().requires_grad_()
    q = torch.tensor([[1.0, 2.0, -torch.inf]] * 3)
    actions = torch.tensor([0, 1, 0])
    target = rows.gather(1, actions.unsqueeze(1)).squeeze(1)
    sample = replace(b.sample, log_prob_target=target)
    acer = recipes.acer(sample, rows, rows.detach(), actions, q, torch.zeros(1))
    values = recipes.expected_value(sample, rows, q)
    robust = recipes.doubly_robust(sample, values, q[range(3), actions])
    for total in (acer, robust):
        assert total.isfinite() and gradient(total, rows).isfinite().all()


def test_a_weight_and_a_ratio_that_overflow_apart_may_be_exact_together():
    """π_old/μ = e^9999, π_θ/π_old = e^-9999."""
    target = torch.tensor([-1e4], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1)
    sample = rw.Sample(target, -1e4 * one, rw.Segments.packed([1]))
    total = recipes.decoupled_ppo(sample, -one, one)
    assert total.item() == -1.0 and gradient(total, target).item() == -1.0


def test_nothing_of_the_future_counts_at_a_discount_of_zero():
    b = ragged([2, 2], 28)
    rewards = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    b = differentiated(replace(b, behaviour=b.target - 1e4))
    total = recipes.per_decision(rw.Sample(b.target, b.behaviour, b.segments, rewards, 0.0))
    assert total.item() == 0.0 and gradient(total, b.target).tolist() == [0.0] * 4


def test_with_one_step_an_episode_the_scopes_are_one():
    b = differentiated(ragged([1] * 8, 3))
    want = gradient(loss("step", b), b.target)
    for name in ("behaviour_continuation", "per_decision", "trajectory", "importance_sampling"):
        close(gradient(loss(name, b), b.target), want)


def test_a_single_final_reward_makes_trajectory_weights_per_decision():
    b = ragged([4, 2, 5], 4)
    b = differentiated(replace(b, rewards=torch.where(b.segments.is_last, b.rewards, 0.0)))
    want = gradient(loss("per_decision", b), b.target)
    for name in ("trajectory", "importance_sampling"):
        close(gradient(loss(name, b), b.target), want)


def test_per_decision_is_the_gradient_of_the_weighted_return():
    """`-(1/N) Σ γ^t w_t r_t`, differentiated through the weights, and in the form of scores."""
    b = differentiated(ragged([4, 2, 5], 5))
    discounted = b.sample.discount_from_start * b.rewards
    direct = -(discounted * b.prefix.exp()).sum() / len(b.segments)
    continuation = rw.returns.weighted_reward_to_go(b.rewards, b.prefix, b.segments, discount=GAMMA)
    scores = -recipes.weighted_score(b.sample, 1.0, continuation).sum() / 3
    for other in (direct, scores):
        close(gradient(loss("per_decision", b), b.target), gradient(other, b.target))
    close(loss("per_decision", b).detach(), direct.detach())


@pytest.mark.parametrize("weighted", ["", "weighted_"])
def test_a_critic_of_zero_makes_doubly_robust_per_decision(weighted):
    b = differentiated(ragged([4, 2, 5], 22))
    zero = torch.zeros(11)
    found = recipes.ALL[f"{weighted}doubly_robust"](b.sample, zero, zero)
    want = loss(f"{weighted}per_decision", b)
    close(found.detach(), want.detach())
    close(gradient(found, b.target), gradient(want, b.target))


def test_states_as_the_behaviour_visits_them_make_the_marginal_a_step():
    b = ragged([4, 2, 5], 23)
    found = recipes.state_marginal(b.sample, torch.zeros(11), b.sample.reward_to_go)
    close(found, loss("step", b))


def test_a_bootstrap_stands_for_the_rewards_after_a_cut():
    b = ragged([4, 2, 5], 23)
    found = recipes.step(b.sample, bootstrap=b.bootstrap)
    rewards = b.rewards + GAMMA * torch.where(b.segments.is_last, b.segments.spread(b.bootstrap), 0)
    close(found, recipes.step(replace(b.sample, rewards=rewards)))


@PROBLEMS
@pytest.mark.parametrize("critic", ["theta", "critic"])
def test_critics_and_marginals_give_the_golden_gradient(file, critic):
    problem = Problem.read(file)
    case = replace(logged(problem, file["batch"], horizon=problem.horizon), critic=critic)
    golden = file["batch_results"]
    robust = recipes.doubly_robust(case.sample, case.values, case.action_values)
    name = "dr_exactQ" if critic == "theta" else "dr_misQ"
    close(-case.gradient(robust), golden[name]["grad"], 1e-11)
    if critic == "theta":
        marginal = recipes.state_marginal(case.sample, case.log_state_ratios, case.action_values)
        close(-case.gradient(marginal), golden["marg_Qtheta"]["grad"], 1e-11)


def test_one_source_is_no_mixture():
    b = ragged([4, 2, 5], 6)
    found = recipes.balance_heuristic(b.sample, b.behaviour.unsqueeze(0), torch.ones(1))
    close(found, loss("per_decision", b))
    against = b.sample.against(b.behaviour.unsqueeze(0), torch.ones(1))
    close(recipes.per_decision(against), found)


def test_a_wide_bound_truncates_nothing():
    b = differentiated(ragged([4, 2, 5], 6))
    for name in ("per_decision", "doubly_robust"):
        wide = recipes.truncated(recipes.ALL[name], maximum=torch.inf)(b.sample, *INPUTS[name](b))
        close(wide.detach(), loss(name, b).detach())
        close(gradient(wide, b.target), gradient(loss(name, b), b.target))
    wide = loss("truncated_importance_sampling", b, maximum=torch.inf, lowest_return=-torch.inf)
    close(wide, loss("importance_sampling", b))


def test_a_truncated_weight_keeps_its_score():
    b = differentiated(ragged([4, 2, 5], 6))
    found = recipes.truncated(recipes.per_decision, maximum=0.8)(b.sample)
    bounded = b.prefix.detach().clamp(max=math.log(0.8))
    continuation = rw.returns.weighted_reward_to_go(b.rewards, bounded, b.segments, discount=GAMMA)
    scores = -recipes.weighted_score(b.sample, 1.0, continuation).sum() / 3
    close(gradient(found, b.target), gradient(scores, b.target))
    close(found.detach(), -(b.sample.discounted_rewards * bounded.exp()).sum() / 3)


@pytest.mark.parametrize("name", ["truncated_importance_sampling", "per_decision"])
def test_a_weight_of_zero_has_no_gradient(name):
    """The target never takes the second action: nothing after it in the episode is weighed."""
    b = ragged([4, 2, 5], 6)
    target = b.target.clone()
    target[1] = -torch.inf
    b = differentiated(replace(b, target=target))
    recipe = recipes.truncated_importance_sampling.bind(maximum=0.8, lowest_return=-50.0)
    if name == "per_decision":
        recipe = recipes.truncated(recipes.per_decision, maximum=0.8)
    slope = gradient(recipe(b.sample), b.target)
    assert slope.isfinite().all() and bool((slope[1:4] == 0).all())


def test_returns_below_the_lowest_are_refused():
    b = ragged([4, 2, 5], 6)
    with pytest.raises(ValueError, match="less than lowest_return, 50"):
        recipes.truncated_importance_sampling(b.sample, lowest_return=50.0)


def test_trpo_is_ppo_with_a_clip_that_nothing_reaches():
    b = differentiated(ragged([4, 2, 5], 7))
    wide, found = loss("ppo", b, clip=1e6), loss("trpo", b)
    close(found.detach(), wide.detach())
    close(gradient(found, b.target), gradient(wide, b.target))


def test_geppo_with_one_policy_is_ppo():
    b = ragged([4, 2, 5], 8)
    one = recipes.policy_weights(torch.ones(11).long(), shares=torch.ones(1), mean_age=1.0)
    assert one.tolist() == [1.0] * 11
    for policy_weights in (one, None):
        found = recipes.geppo(
            b.sample, b.advantages, b.behaviour, clip=0.2, policy_weights=policy_weights
        )
        close(found, loss("ppo", b))


def test_geppo_counts_each_policy_by_its_proportion():
    """Where nothing is clipped: every policy's mean term, times its proportion."""
    b = ragged([4, 2, 6], 9)
    age = torch.tensor([1] * 4 + [2] * 2 + [3] * 6)
    shares = torch.tensor([4, 2, 6]).double() / 12
    alpha = recipes.policy_weights(age, shares=shares, mean_age=1.5)
    found = recipes.geppo(b.sample, b.advantages, b.target, policy_weights=alpha)
    terms = b.ratios.exp() * b.advantages
    means = torch.stack([terms[age == i].mean() for i in (1, 2, 3)])
    proportions = weights.proportions_by_age(3, mean_age=1.5)
    close(found, -(proportions * means).sum() * 12 / 3)


def test_the_trust_region_of_geppo_is_around_the_current_policy():
    b = ragged([8, 5], 20)
    current, age = b.target + 0.4 * b.values, torch.tensor([1] * 8 + [2] * 5)
    shares = torch.tensor([8 / 13, 5 / 13], dtype=torch.float64)
    alpha = recipes.policy_weights(age, shares=shares, mean_age=1.25)
    found = recipes.geppo(b.sample, b.advantages, current, clip=0.24, policy_weights=alpha)
    ratio, centre = b.ratios.exp(), (current - b.behaviour).exp()
    share = torch.tensor([0.75 / 8, 0.25 / 5], dtype=torch.float64)[age - 1]
    counted = 13 * share * b.advantages
    clipped = torch.minimum(torch.maximum(ratio, centre - 0.24), centre + 0.24)
    assert bool((clipped != ratio).any()) and bool((clipped == ratio).any())
    close(found, -torch.minimum(ratio * counted, clipped * counted).sum() / 2)


def test_pois_without_doubt_is_the_trajectory_estimate_of_total_rewards():
    b = differentiated(ragged([4, 2, 5], 10))
    found = recipes.pois(b.sample, torch.zeros(11), delta=1.0)
    whole = b.segments.last(b.prefix).detach().exp()
    total = b.segments.total(b.rewards * GAMMA ** b.segments.time.double())
    close(found.detach(), -(whole * total).mean())
    close(gradient(found, b.target), -b.segments.spread(whole * total) / 3)


def test_pois_stays_near_by_itself():
    """The bound falls as the target leaves the behaviour, where all returns are equal."""
    logits = torch.zeros(6, 2, dtype=torch.float64)
    segments, actions = rw.Segments.packed([3, 3]), torch.tensor([0, 1, 0, 1, 0, 1])
    losses = []
    for step in (0.0, 0.5, 1.0):
        moved = logits + torch.tensor([step, 0.0])
        taken = moved.log_softmax(1)[range(6), actions]
        behaviour = logits.log_softmax(1)[range(6), actions]
        divergence = divergences.renyi2_categorical(moved, logits, segments)
        sample = rw.Sample(taken, behaviour, segments, torch.ones(6))
        losses.append(
            recipes.pois(sample, divergence).item() + sample.log_trajectory.exp().mean().item() * 3
        )
    assert losses[0] < losses[1] < losses[2]


def test_pois_is_no_sum_over_steps():
    b = ragged([4, 2, 5], 10)
    with pytest.raises(ValueError, match="pois is no sum over steps: it takes no divisor"):
        recipes.pois(b.sample, torch.zeros(11), divisor=3)


def test_retrace_with_an_infinite_maximum_is_acer():
    b = differentiated(ragged([4, 2, 5], 11))
    values = (pairs(b.target).exp() * critic_rows(b)).sum(1).detach()
    acer = loss("acer", b, maximum=torch.inf)
    retrace = recipes.retrace(b.sample, values, b.values, b.bootstrap)
    close(gradient(acer, b.target), gradient(retrace, b.target))


@PROBLEMS
@pytest.mark.parametrize("maximum", [0.5, 1.0, 5.0])
def test_with_an_exact_critic_acer_has_no_bias_whatever_its_maximum(file, maximum):
    """All trajectories enumerated: the expectation of Off-PAC, states of the behaviour."""
    problem = Problem.read(file)
    case = enumerated(problem, ["phi"])
    # The objective is linear in rewards and critic: each episode in units of its probability.
    share = case.segments.spread(case.probability)
    sample = replace(case.sample, rewards=case.sample.rewards * share)
    found = recipes.acer(
        sample,
        case.log_probs_target,
        case.log_probs_behaviour,
        case.actions,
        case.all_action_values * share.unsqueeze(1),
        case.bootstrap,
        maximum=maximum,
        divisor=1,
    )
    want = tensor(file["exact"]["F"], "phi,theta,nogt", *problem.logits["theta"].shape)
    close(-case.gradient(found), want, 1e-11)


@PROBLEMS
def test_mixtures_give_the_golden_gradient(file):
    problem = Problem.read(file)
    case = logged_mixture(problem, file["mix_batch"])
    results = file["mix_batch"]["results"]
    balanced = recipes.balance_heuristic(case.sample, case.log_prob_sources, case.proportions)
    close(-case.gradient(balanced), results["mix_bh_pdis"]["grad"], 1e-11)
    moments = enumerated(problem, ["phi1", "phi2"], case.counts).second_moments
    bounded = recipes.power_mean(
        case.sample, case.log_prob_sources, case.source, moments, episodes=case.counts
    )
    close(-case.gradient(bounded), results["mix_pm_traj_paper"]["grad"], 1e-11)


def test_the_group_recipes_agree_where_they_must():
    b = ragged([5] * 6, 12)
    assert loss("grpo", b) != loss("dapo", b)
    close(loss("dapo", b, clip_high=0.2), loss("grpo", b))
    single = ragged([1] * 6, 13)
    close(loss("gspo", single, clip_high=0.2), loss("grpo", single))


@pytest.mark.parametrize("name", ["gspo", "cispo"])
def test_away_from_its_own_data_the_formula_of_the_paper(name):
    b = ragged([3, 5, 2, 4], 21)
    b = replace(b, target=b.behaviour + (0.3 if name == "gspo" else 1.0) * b.values)
    b = differentiated(b)
    relative = advantages.group_relative(b.bootstrap, group(b), groups=2)
    want, parts = 0.0, zip(b.segments.start, b.segments.stop, relative, strict=True)
    for start, stop, advantage in parts:
        log_prob, ratios = b.target[start:stop], b.ratios[start:stop]
        if name == "gspo":
            s = ratios.mean().exp()
            term = torch.minimum(s * advantage, s.clamp(0.8, 1.3) * advantage) / 4
        else:
            weight = ratios.exp().detach()
            term = (weight.clamp(0.5, 1.3) * advantage * log_prob).sum() / 14
        want = want - term
    found = loss(name, b)
    close(found.detach(), want.detach())
    close(gradient(found, b.target), gradient(want, b.target))
    assert name == "gspo" or bool((b.ratios < math.log(0.5)).any())
    assert bool((b.ratios > math.log(1.3)).any())


def test_on_its_own_data_dr_grpo_is_rloo_but_for_a_constant():
    b = own_data([3, 5, 2, 4, 1, 6], 14)
    found, want = (gradient(loss(name, b), b.target) for name in ("dr_grpo", "rloo"))
    close(found * 9 * 3 / 2, want)


@pytest.mark.parametrize("name", GROUPS)
def test_a_constant_added_to_a_groups_returns_changes_nothing(name):
    b = ragged([3, 5, 2, 4], 15)
    shifted = replace(b, bootstrap=b.bootstrap + torch.tensor([3.0, -1.0, 3.0, -1.0]))
    close(loss(name, shifted), loss(name, b), 1e-9)


@pytest.mark.parametrize("name", [*GROUPS, "topr"])
def test_an_answers_advantages_come_by_answer_by_token_or_from_its_group(name):
    b, compared = ragged([3, 5, 2, 4], 15), advantages.group_relative
    compared = {"dr_grpo": advantages.group_centred}.get(name, compared)
    compared = advantages.leave_one_out if name in ("rloo", "topr") else compared
    each = compared(b.bootstrap, group(b), groups=2)
    recipe, named = recipes.ALL[name], knobs(name, b)
    want = recipe(b.sample, *grouped(b), **named)
    close(recipe(b.sample, each, **named), want)
    close(recipe(b.sample, b.segments.spread(each), **named), want)
    rows, mask = padded(b, 6)
    by_token = torch.where(mask, each.unsqueeze(1), torch.nan)
    shaped = rw.Sample(
        rows.target.reshape(4, 6), rows.behaviour.reshape(4, 6), rows.segments, discount=GAMMA
    )
    close(recipe(shaped, by_token, **named), want)


def test_three_policies_agree_where_they_must():
    b = ragged([4, 2, 5], 16)
    tokens = 11 / 3
    close(recipes.tis(b.sample, b.behaviour, b.advantages, maximum=1.0) * tokens, loss("ppo", b))
    apart = (b.sample, b.sources[0], b.advantages)
    decoupled = recipes.decoupled_ppo(*apart)
    close(recipes.icepop(*apart, minimum=0.0, maximum=torch.inf), decoupled)
    assert recipes.icepop(*apart, minimum=0.9, maximum=1.1) != decoupled
    close(recipes.decoupled_ppo(*apart, clip=1e6) * tokens, loss("trpo", b))


def test_topr_imitates_the_good_and_tapers_the_bad():
    b = ragged([3, 3, 2], 17)
    b = differentiated(replace(b, bootstrap=torch.tensor([1.0, -1.0, -0.5])))
    whole = b.segments.last(b.prefix).detach().exp().clamp(max=1.0)
    alpha = torch.tensor([1.0, whole[1], whole[2]])
    close(gradient(loss("topr", b), b.target), -b.segments.spread(alpha * b.bootstrap) / 3, 1e-7)


def part(b, episodes):
    """The first or the last episodes of a batch, as a batch."""
    steps = torch.isin(b.segments.episode, torch.arange(len(b.segments))[episodes])
    return replace(
        b,
        segments=rw.Segments.packed(b.segments.lengths[episodes]),
        bootstrap=b.bootstrap[episodes],
        sources=b.sources[:, steps],
        **{name: getattr(b, name)[steps] for name in STEPS},
    )


@pytest.mark.parametrize("name", sorted(set(INPUTS) - {"pois", *GROUPS, *SELF_NORMALISED}))
def test_parts_with_the_whole_divisor_sum_to_the_whole(name):
    b = ragged([3, 5, 2, 4, 3, 1, 2, 5], 18)
    whole = {"divisor": 25 if name in TOKENS else 8}
    whole |= {"episodes": [4, 4]} if name == "power_mean" else {}
    first, second = (loss(name, part(b, x), **whole) for x in (slice(0, 4), slice(4, 8)))
    close(first + second, loss(name, b))


@pytest.mark.parametrize("name", [*GROUPS, "topr"])
def test_parts_of_any_cut_sum_to_the_whole_if_advantages_are_the_whole_batchs(name):
    b = ragged([3, 5, 2, 4], 18)
    recipe, each = recipes.ALL[name], b.bootstrap
    named = knobs(name, b) | {"divisor": 14 if name in TOKENS else 4}
    parts = [recipe(part(b, x).sample, each[x], **named) for x in (slice(0, 1), slice(1, 4))]
    close(sum(parts), recipe(b.sample, each, **named))


@pytest.mark.parametrize("name", sorted(SELF_NORMALISED))
def test_a_self_normalised_estimate_has_no_divisor(name):
    with pytest.raises(ValueError, match="self-normalised over the batch"):
        loss(name, ragged([4, 2, 5], 10), divisor=3)


def test_arguments_that_would_broadcast_are_refused():
    b = ragged([3, 2], 27)
    answers = recipes.Grouped(torch.ones(4), torch.zeros(4).long(), 1)
    with pytest.raises(ValueError, match=r"must have shape \[5\].*got \[4\]"):
        recipes.rloo(b.sample, answers)
    with pytest.raises(ValueError, match=r"age - 1 must lie in \[0, 2\)"):
        recipes.policy_weights(torch.zeros(5).long(), shares=torch.tensor([0.5, 0.5]), mean_age=1.5)
    with pytest.raises(ValueError, match=r"source must have shape \[2\]"):
        recipes.power_mean(
            b.sample, b.sources, torch.zeros(5).long(), torch.ones(3), episodes=[1, 1, 1]
        )
    with pytest.raises(ValueError, match=r"actions must have shape \[5\]"):
        rows = pairs(b.target)
        recipes.acer(b.sample, rows, rows, torch.zeros(1).long(), critic_rows(b), torch.zeros(2))
    with pytest.raises(ValueError, match=r"advantages must have shape \[5\]"):
        recipes.ppo(b.sample, torch.ones(2))


def test_the_impala_critic_regresses_on_the_same_trace():
    b = differentiated(ragged([4, 2], 19))
    bounded = weights.truncate(b.ratios, b.segments, maximum=1.0).log_weights
    trace = advantages.vtrace(
        b.rewards, b.values, b.bootstrap, bounded, bounded, b.segments, discount=GAMMA
    )
    close(gradient(loss("impala", b), b.target), -trace.advantages / 2)


GOLDEN_NAMES = {
    "behaviour_continuation": "seed",
    "step": "step",
    "trajectory": "traj_rtg",
    "reinforce": "reinforce_old",
    "per_decision": "pdis",
    "importance_sampling": "traj_total",
}


@PROBLEMS
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_recipes_give_the_golden_loss_and_gradient(file, name):
    problem = Problem.read(file)
    case = logged(problem, file["batch"], horizon=problem.horizon)
    golden = file["batch_results"][GOLDEN_NAMES[name]]
    total = recipes.ALL[name](case.sample)
    if name not in recipes.VALUES:  # the file's loss is that of scores
        assert total.item() == pytest.approx(golden["loss"], rel=1e-11)
    close(-case.gradient(total), golden["grad"], 1e-11)


@PROBLEMS
def test_ppo_gives_the_golden_loss_and_gradient(file):
    problem = Problem.read(file)
    case = logged(problem, file["batch"], horizon=problem.horizon)
    golden = file["batch_results"]["ppo_clip0.2"]
    total = recipes.ppo(case.sample, case.sample.reward_to_go - case.value("phi"), clip=0.2)
    assert total.item() == pytest.approx(golden["ppo_loss"], rel=1e-11)
    close(-case.gradient(total), golden["grad"], 1e-11)


WHOLE = (
    *("behaviour_continuation", "per_decision", "importance_sampling", "trajectory"),
    *("weighted_importance_sampling", "weighted_per_decision", "weighted_doubly_robust"),
    *("truncated_importance_sampling", "pareto_smoothed", "doubly_robust"),
    *("balance_heuristic", "power_mean", "pois", "gspo", "topr"),
)


@pytest.mark.parametrize("name", WHOLE)
def test_fragments_are_refused(name):
    b = replace(ragged([2], 0), segments=rw.Segments.packed([2], time_start=torch.tensor([3])))
    with pytest.raises(ValueError, match=r"log_weight_start is needed|needs whole episodes"):
        loss(name, b)


def test_rewards_that_are_not_there_are_asked_for():
    b = ragged([3, 2], 0)
    with pytest.raises(ValueError, match="needs rewards, and the sample has none: pass rewards="):
        recipes.per_decision(replace(b.sample, rewards=None))
    assert recipes.ppo(replace(b.sample, rewards=None), b.advantages).isfinite()
