import ast
import importlib
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import recipe_table
import torch
from core_batches import close, ragged, scatter
from recipe_table import GAMMA, RECIPES, group, own_data, pairs, plain_coefficients
from reweigh.verify.samples import enumerated, logged, logged_mixture

from reweigh import recipes
from reweigh.core import advantages, divergences, returns, weights
from reweigh.core.segments import Segments
from reweigh.verify.golden import SHIPPED, Problem, tensor

GOLDEN = json.loads(SHIPPED.read_text())
FILES = sorted((Path(recipes.__file__).parent).glob("*.py"))
PROBLEMS = pytest.mark.parametrize("file", GOLDEN["problems"], ids=lambda file: file["name"])


def gradient(loss, leaf):
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def functions():
    return [node for path in FILES for node in ast.parse(path.read_text()).body if named(node)]


def named(node):
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("_")


def test_every_recipe_is_in_the_table_and_short():
    assert {node.name for node in functions()} == set(RECIPES)
    for node in functions():
        statements = [ast.unparse(line) for line in node.body[1:]]
        assert len(statements) <= 15, node.name
        words = ast.get_docstring(node)
        assert words and "Returns:\n    Scalar." in words, node.name
        assert "ias" in words or "expectation" in words, f"{node.name}: unbiased for what?"


@pytest.mark.parametrize("name", RECIPES)
def test_on_its_own_data_a_recipe_is_the_plain_policy_gradient(name):
    b = own_data([4, 3, 6, 1], 0)
    want = plain_coefficients(name, b)
    if want is not None:
        close(gradient(RECIPES[name](b), b.target), -want)


@pytest.mark.parametrize("name", RECIPES)
def test_every_layout_gives_the_same_loss_and_gradient(name):
    b = ragged([4, 0, 6, 1], 1)
    moved, positions = scatter(b, 2)
    b.target.requires_grad_(), moved.target.requires_grad_()
    loss, moved_loss = RECIPES[name](b), RECIPES[name](moved)
    close(moved_loss.detach(), loss.detach())
    found = gradient(moved_loss, moved.target)
    close(found[positions], gradient(loss, b.target))
    assert found.isfinite().all() and int((found != 0).sum()) <= len(positions)


@pytest.mark.parametrize("name", RECIPES)
def test_behaviour_rewards_and_critics_are_constants(name):
    b = ragged([4, 2, 6, 1], 3)
    constants = ("behaviour", "rewards", "values", "advantages", "sources", "bootstrap")
    # The bound of POIS differentiates a divergence, which the table makes of the values.
    constants = [c for c in constants if (name, c) != ("pois", "values")]
    leaves = {c: getattr(b, c).clone().requires_grad_() for c in constants}
    loss = RECIPES[name](replace(b, target=b.target.requires_grad_(), **leaves))
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    assert all(g is None or bool((g == 0).all()) for g in found)


@pytest.mark.parametrize("name", RECIPES)
def test_float32_gives_the_same_to_float32(name):
    b = ragged([4, 2, 6, 3], 4)
    fields = ("target", "behaviour", "rewards", "values", "advantages", "sources", "bootstrap")
    half = replace(b, **{f: getattr(b, f).float() for f in fields})
    found = RECIPES[name](half)
    assert found.dtype == torch.float64
    close(found, RECIPES[name](b), 2e-5)


BOUNDED = ("impala", "acer", "cispo", "topr", "icepop", "power_mean", "balance_heuristic")


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_recipes_stay_finite_at_any_ratio(name, extreme):
    b = ragged([4, 2, 6, 3], 5)
    moved = b.behaviour.clone()
    moved[::3] = -max(extreme, 0.0) - 1.0
    target = b.target.clone()
    target[::3] = -max(-extreme, 0.0) - 1.0
    b = replace(b, behaviour=moved, target=target.requires_grad_())
    loss = RECIPES[name](b)
    assert loss.isfinite() and gradient(loss, b.target).isfinite().all()


def test_with_one_step_an_episode_the_scopes_are_one():
    b = ragged([1] * 8, 3)
    want = RECIPES["step"](b)
    for name in ("seed", "per_decision", "trajectory"):
        close(RECIPES[name](b), want)


def test_a_single_final_reward_makes_trajectory_weights_per_decision():
    b = ragged([4, 2, 5], 4)
    b.rewards = torch.where(b.segments.is_last, b.rewards, 0.0)
    close(RECIPES["trajectory"](b), RECIPES["per_decision"](b))


def test_per_decision_is_the_gradient_of_the_weighted_return():
    """`-(1/N) Σ γ^t w_t r_t`, differentiated through the weights, without any score."""
    b = ragged([4, 2, 5], 5)
    b.target.requires_grad_()
    discounted = returns.discount_from_start(b.segments, discount=GAMMA) * b.rewards
    direct = -(discounted * b.prefix.exp()).sum() / len(b.segments)
    close(gradient(RECIPES["per_decision"](b), b.target), gradient(direct, b.target))


def test_a_critic_of_nothing_makes_doubly_robust_per_decision():
    b = ragged([4, 2, 5], 22)
    b.target.requires_grad_()
    found = recipes.doubly_robust(
        pairs(b.target),
        b.behaviour,
        torch.zeros(11).long(),
        b.rewards,
        torch.zeros(11, 2),
        b.segments,
        discount=GAMMA,
    )
    close(found.detach(), RECIPES["per_decision"](b).detach())
    close(gradient(found, b.target), gradient(RECIPES["per_decision"](b), b.target))


def test_states_as_the_behaviour_visits_them_make_the_marginal_a_step():
    b = ragged([4, 2, 5], 23)
    to_go = returns.reward_to_go(b.rewards, b.segments, discount=GAMMA)
    zeros = torch.zeros(11)
    found = recipes.state_marginal(b.target, b.behaviour, zeros, to_go, b.segments, discount=GAMMA)
    close(found, RECIPES["step"](b))


@PROBLEMS
@pytest.mark.parametrize("name", ["dr_exactQ", "dr_misQ", "marg_Qtheta"])
def test_critics_and_marginals_give_the_golden_gradient(file, name):
    problem = Problem.read(file)
    b, theta = logged(problem, file["batch"], horizon=problem.horizon), problem.logits["theta"]
    behaviour = tensor(file["batch"], "logp_old", -1, problem.horizon).flatten()
    if name == "marg_Qtheta":
        loss = recipes.state_marginal(
            b.log_prob,
            behaviour,
            b.log_state_ratios,
            b.action_value("theta"),
            b.segments,
            discount=b.discount,
        )
    else:
        loss = recipes.doubly_robust(
            b.log_probs,
            behaviour,
            b.actions,
            b.rewards,
            b.action_values("theta" if name == "dr_exactQ" else "critic"),
            b.segments,
            discount=b.discount,
        )
    close(-gradient(loss, theta), file["batch_results"][name]["grad"], 1e-11)


def test_one_source_is_no_mixture():
    b = ragged([4, 2, 5], 6)
    alone = b.behaviour.unsqueeze(0)
    found = recipes.balance_heuristic(
        b.target, alone, torch.ones(1), b.rewards, b.segments, discount=GAMMA
    )
    close(found, RECIPES["per_decision"](b))


def test_trpo_is_ppo_with_a_clip_that_nothing_reaches():
    b = ragged([4, 2, 5], 7)
    b.target.requires_grad_()
    wide = recipes.ppo(b.target, b.behaviour, b.advantages, b.segments, clip=1e6)
    found = recipes.trpo(b.target, b.behaviour, b.advantages, b.segments)
    close(found.detach(), wide.detach())
    close(gradient(found, b.target), gradient(wide, b.target))


def test_geppo_with_one_policy_is_ppo():
    b = ragged([4, 2, 5], 8)
    found = recipes.geppo(
        b.target,
        b.behaviour,
        b.behaviour,
        b.advantages,
        torch.ones(11).long(),
        b.segments,
        shares=torch.ones(1),
        clip=0.2,
        mean_age=1.0,
    )
    close(found, RECIPES["ppo"](b))


def test_geppo_counts_each_policy_by_its_proportion():
    """Where nothing is clipped: every policy's mean term, times its proportion."""
    b = ragged([4, 2, 6], 9)
    age = torch.tensor([1] * 4 + [2] * 2 + [3] * 6)
    found = recipes.geppo(
        b.target,
        b.target,
        b.behaviour,
        b.advantages,
        age,
        b.segments,
        shares=torch.tensor([4, 2, 6]).double() / 12,
        clip=0.2,
        mean_age=1.5,
    )
    terms = b.ratios.exp() * b.advantages
    means = torch.stack([terms[age == i].mean() for i in (1, 2, 3)])
    proportions = weights.proportions_by_age(3, mean_age=1.5)
    close(found, -(proportions * means).sum() * 12 / 3)


def test_the_radius_of_geppo_is_that_of_ppo_over_the_mean_age():
    b = ragged([8, 5], 20)
    current, age = b.target + 0.4 * b.values, torch.tensor([1] * 8 + [2] * 5)
    found = recipes.geppo(
        b.target,
        current,
        b.behaviour,
        b.advantages,
        age,
        b.segments,
        shares=torch.tensor([8 / 13, 5 / 13], dtype=torch.float64),
        clip=0.3,
        mean_age=1.25,
    )
    ratio, centre = b.ratios.exp(), (current - b.behaviour).exp()
    share = torch.tensor([0.75 / 8, 0.25 / 5], dtype=torch.float64)[age - 1]
    counted = 13 * share * b.advantages
    clipped = torch.minimum(torch.maximum(ratio, centre - 0.24), centre + 0.24)
    assert bool((clipped != ratio).any()) and bool((clipped == ratio).any())
    close(found, -torch.minimum(ratio * counted, clipped * counted).sum() / 2)


def test_pois_without_doubt_is_the_trajectory_estimate_of_total_rewards():
    b = ragged([4, 2, 5], 10)
    b.target.requires_grad_()
    found = recipes.pois(
        b.target,
        b.behaviour,
        b.rewards,
        torch.zeros(11),
        b.segments,
        discount=GAMMA,
        delta=1.0,
    )
    whole = b.segments.last(b.prefix).detach().exp()
    total = b.segments.total(b.rewards * GAMMA ** b.segments.time.double())
    close(found.detach(), -(whole * total).mean())
    close(gradient(found, b.target), -b.segments.spread(whole * total) / 3)


def test_pois_stays_near_by_itself():
    """The bound falls as the target leaves the behaviour, where all returns are equal."""
    logits = torch.zeros(6, 2, dtype=torch.float64)
    segments, actions = Segments.packed([3, 3]), torch.tensor([0, 1, 0, 1, 0, 1])
    losses = []
    for step in (0.0, 0.5, 1.0):
        moved = logits + torch.tensor([step, 0.0])
        taken = moved.log_softmax(1)[range(6), actions]
        behaviour = logits.log_softmax(1)[range(6), actions]
        divergence = divergences.renyi2_categorical(moved, logits, segments)
        losses.append(
            recipes.pois(
                taken, behaviour, torch.ones(6), divergence, segments, discount=1.0, delta=0.2
            ).item()
            + weights.trajectory(taken - behaviour, segments).exp()[[0, 3]].mean().item() * 3
        )
    assert losses[0] < losses[1] < losses[2]


def test_retrace_with_an_infinite_maximum_is_acer():
    b = ragged([4, 2, 5], 11)
    b.target.requires_grad_()
    rows = torch.stack([b.values, b.advantages], dim=1)
    every = pairs(b.target)
    v = (every.exp() * rows).sum(1).detach()
    acer = recipes.acer(
        every,
        pairs(b.behaviour),
        torch.zeros(11).long(),
        b.rewards,
        rows,
        b.bootstrap,
        b.segments,
        discount=GAMMA,
        maximum=torch.inf,
    )
    retrace = recipes.retrace(
        b.target,
        b.behaviour,
        b.rewards,
        v,
        b.values,
        b.bootstrap,
        b.segments,
        discount=GAMMA,
    )
    close(gradient(acer, b.target), gradient(retrace, b.target))


@PROBLEMS
@pytest.mark.parametrize("maximum", [0.5, 1.0, 5.0])
def test_with_an_exact_critic_acer_has_no_bias_whatever_its_maximum(file, maximum):
    """All trajectories enumerated: the expectation of Off-PAC, states of the behaviour."""
    problem = Problem.read(file)
    theta, phi = problem.logits["theta"], problem.logits["phi"]
    s, probability = enumerated(problem, ["phi"], torch.ones(1), horizon=problem.horizon)
    # Episodes counted by their probabilities: as many times as these, of N, is a weight of theirs.
    total = torch.zeros_like(theta)
    q, every = s.action_values("theta"), theta.log_softmax(1)
    chunks = probability.split(2000)
    for i, share in enumerate(chunks):
        episodes = torch.arange(i * 2000, i * 2000 + len(share))
        steps = torch.isin(s.segments.episode, episodes)
        segments = Segments.packed(s.segments.lengths[episodes])
        objective = -recipes.acer(
            every[s.states[steps]].clone(),
            phi.log_softmax(1)[s.states[steps]],
            s.actions[steps],
            *scaled(s.rewards[steps], q[steps], segments, share),
            torch.zeros(len(share)),
            segments,
            discount=problem.discount,
            maximum=maximum,
        ) * len(share)
        total = total + gradient(objective, theta)
        every = theta.log_softmax(1)
    want = tensor(file["exact"]["F"], "phi,theta,nogt", *theta.shape)
    close(total, want, 1e-11)


def scaled(rewards, q, segments, share):
    """Rewards and critic in units of the episode's probability: the estimate is linear in both."""
    each = segments.spread(share)
    return rewards * each, q * each.unsqueeze(1)


@PROBLEMS
def test_mixtures_give_the_golden_gradient(file):
    problem = Problem.read(file)
    b, theta = logged_mixture(problem, file["mix_batch"]), problem.logits["theta"]
    results = file["mix_batch"]["results"]
    balanced = recipes.balance_heuristic(
        b.log_prob, b.log_prob_sources, b.proportions, b.rewards, b.segments, discount=b.discount
    )
    close(-gradient(balanced, theta), results["mix_bh_pdis"]["grad"], 1e-11)
    everything, p = enumerated(problem, ["phi1", "phi2"], b.proportions, horizon=problem.horizon)
    whole = (2 * everything.segments.total(everything.log_ratios.detach())).exp()
    moments = torch.stack([(p * whole)[everything.source == j].sum() for j in (0, 1)])
    bounded = recipes.power_mean(
        b.log_prob,
        b.log_prob_sources,
        b.source,
        moments / b.proportions,
        b.rewards,
        b.segments,
        episodes=file["mix_batch"]["counts"],
        discount=b.discount,
    )
    close(-gradient(bounded, theta), results["mix_pm_traj_paper"]["grad"], 1e-11)


def test_the_group_recipes_agree_where_they_must():
    b = ragged([5] * 6, 12)
    assert RECIPES["grpo"](b) != RECIPES["dapo"](b)
    even = {"groups": 2, "clip": 0.2, "clip_high": 0.2}
    arguments = (b.target, b.behaviour, b.bootstrap, group(b), b.segments)
    close(recipes.dapo(*arguments, **even), RECIPES["grpo"](b))
    single = ragged([1] * 6, 13)
    arguments = (single.target, single.behaviour, single.bootstrap, group(single), single.segments)
    close(recipes.gspo(*arguments, **even), RECIPES["grpo"](single))


@pytest.mark.parametrize("name", ["gspo", "cispo"])
def test_away_from_its_own_data_the_formula_of_the_paper(name):
    b = ragged([3, 5, 2, 4], 21)
    b.target = (b.behaviour + (0.3 if name == "gspo" else 1.0) * b.values).requires_grad_()
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
    found = RECIPES[name](b)
    close(found.detach(), want.detach())
    close(gradient(found, b.target), gradient(want, b.target))
    assert name == "gspo" or bool((b.ratios < math.log(0.5)).any())
    assert bool((b.ratios > math.log(1.3)).any())


def test_on_its_own_data_dr_grpo_is_rloo_but_for_a_constant():
    b = own_data([3, 5, 2, 4, 1, 6], 14)
    found, want = (gradient(RECIPES[name](b), b.target) for name in ("dr_grpo", "rloo"))
    close(found * 9 * 3 / 2, want)


def test_a_constant_added_to_a_groups_scores_changes_nothing():
    b = ragged([3, 5, 2, 4], 15)
    shifted = replace(b, bootstrap=b.bootstrap + torch.tensor([3.0, -1.0, 3.0, -1.0]))
    for name in ("grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo"):
        close(RECIPES[name](shifted), RECIPES[name](b), 1e-9)


def test_three_policies_agree_where_they_must():
    b = ragged([4, 2, 5], 16)
    tokens = 11 / 3
    same = (b.target, b.behaviour, b.behaviour, b.advantages, b.segments)
    close(recipes.tis(*same, clip=0.2, maximum=1.0) * tokens, RECIPES["ppo"](b))
    apart = (b.target, b.sources[0], b.behaviour, b.advantages, b.segments)
    decoupled = recipes.decoupled_ppo(*apart, clip=0.2)
    close(recipes.icepop(*apart, clip=0.2, minimum=0.0, maximum=torch.inf), decoupled)
    assert recipes.icepop(*apart, clip=0.2, minimum=0.9, maximum=1.1) != decoupled
    wide = recipes.decoupled_ppo(*apart, clip=1e6)
    close(wide * tokens, RECIPES["trpo"](b))


def test_topr_imitates_the_good_and_tapers_the_bad():
    b = ragged([3, 3, 2], 17)
    b = replace(b, bootstrap=torch.tensor([1.0, -1.0, -0.5]), target=b.target.requires_grad_())
    whole = b.segments.last(b.prefix).detach().exp().clamp(max=1.0)
    alpha = torch.tensor([1.0, whole[1], whole[2]])
    found = gradient(RECIPES["topr"](b), b.target)
    close(found, -b.segments.spread(alpha * b.bootstrap) / 3, 1e-7)


TOKENS = ("dapo", "cispo", "tis", "icepop", "decoupled_ppo")
GROUPS = ("grpo", "dr_grpo", "dapo", "rloo", "gspo", "cispo")
PARTS = sorted(set(RECIPES) - {"pois", *GROUPS})


def part(b, episodes):
    """The first or the last episodes of a batch, as a batch."""
    steps = torch.isin(b.segments.episode, torch.arange(len(b.segments))[episodes])
    fields = ("target", "behaviour", "rewards", "values", "advantages")
    return replace(
        b,
        segments=Segments.packed(b.segments.lengths[episodes]),
        bootstrap=b.bootstrap[episodes],
        sources=b.sources[:, steps],
        **{name: getattr(b, name)[steps] for name in fields},
    )


@pytest.mark.parametrize("name", PARTS)
def test_parts_with_the_whole_divisor_sum_to_the_whole(name, monkeypatch):
    b = ragged([3, 5, 2, 4, 3, 1, 2, 5], 18)
    divisor = 25 if name in TOKENS else 8
    monkeypatch.setattr(recipes, name, partial(getattr(recipes, name), divisor=divisor))
    if name == "power_mean":
        monkeypatch.undo()
        own = partial(recipes.power_mean, episodes=[4, 4])
        monkeypatch.setattr(recipes, name, lambda *a, episodes, **k: own(*a, **k))
    first, second = (in_table(name)(part(b, episodes)) for episodes in (slice(0, 4), slice(4, 8)))
    close(first + second, RECIPES[name](b))


@pytest.mark.parametrize("name", GROUPS)
def test_parts_of_whole_groups_sum_to_the_whole(name):
    b = ragged([3, 5, 2, 4], 18)
    knobs = {"grpo": {"clip": 0.2}, "rloo": {}, "cispo": {"maximum": 1.3}}
    knobs |= {"dr_grpo": {"clip": 0.2, "horizon": 9}}
    prompt = torch.tensor([0, 0, 1, 1])

    def run(b, prompt):
        policies = [b.target] if name == "rloo" else [b.target, b.behaviour]
        return getattr(recipes, name)(
            *policies,
            b.bootstrap,
            prompt,
            b.segments,
            groups=2,
            divisor=14 if name in TOKENS else 4,
            **knobs.get(name, {"clip": 0.2, "clip_high": 0.3}),
        )

    parts = (run(part(b, half), prompt[half]) for half in (slice(0, 2), slice(2, 4)))
    close(sum(parts), run(b, prompt))


def in_table(name):
    """The table's recipe, whose function is looked up when it is called."""
    return importlib.reload(recipe_table).RECIPES[name]


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "awr"])  # it imitates
def test_where_there_is_nothing_to_weigh_the_weight_does_not_matter(name, extreme):
    """No reward, no advantage, a critic of 0: the loss is 0, whatever the ratios."""
    b = ragged([4, 2, 6, 3], 24)
    zero = torch.zeros_like
    behaviour = torch.where(torch.arange(15) % 3 == 0, -max(extreme, 0.0) - 1.0, b.behaviour)
    target = torch.where(torch.arange(15) % 3 == 0, -max(-extreme, 0.0) - 1.0, b.target)
    b = replace(
        b,
        behaviour=behaviour,
        target=target.requires_grad_(),
        rewards=zero(b.rewards),
        values=zero(b.values),
        advantages=zero(b.advantages),
        bootstrap=zero(b.bootstrap),
    )
    loss = RECIPES[name](b)
    assert loss.item() == 0.0
    assert bool((gradient(loss, b.target) == 0).all())


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
    close(-gradient(RECIPES[name](b), b.target), want, 1e-9)


def test_an_action_outside_the_support_may_have_any_value():
    b = ragged([3], 26)
    rows = torch.tensor([[0.5, 0.5, 0.0]] * 3).log().requires_grad_()
    q = torch.tensor([[1.0, 2.0, -torch.inf]] * 3)
    actions = torch.tensor([0, 1, 0])
    acer = recipes.acer(
        rows, rows.detach(), actions, b.rewards, q, torch.zeros(1), b.segments, discount=GAMMA
    )
    robust = recipes.doubly_robust(
        rows, rows.detach()[:, 0], actions, b.rewards, q, b.segments, discount=GAMMA
    )
    for loss in (acer, robust):
        assert loss.isfinite() and gradient(loss, rows).isfinite().all()


def test_a_weight_and_a_ratio_that_overflow_apart_may_be_exact_together():
    """π_old/μ = e^9999, π_θ/π_old = e^-9999."""
    target = torch.tensor([-1e4], dtype=torch.float64, requires_grad=True)
    one, segments = torch.ones(1), Segments.packed([1])
    loss = recipes.decoupled_ppo(target, -one, -1e4 * one, one, segments, clip=0.2)
    assert loss.item() == -1.0 and gradient(loss, target).item() == -1.0


def test_nothing_of_the_future_counts_at_a_discount_of_zero():
    b = ragged([2, 2], 28)
    rewards = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    b = replace(b, behaviour=b.target - 1e4, target=b.target.requires_grad_())
    loss = recipes.per_decision(b.target, b.behaviour, rewards, b.segments, discount=0.0)
    assert loss.item() == 0.0 and gradient(loss, b.target).tolist() == [0.0] * 4


def test_arguments_that_would_broadcast_are_refused():
    b = ragged([3, 2], 27)
    with pytest.raises(ValueError, match=r"scores must have shape \[2\]"):
        recipes.rloo(b.target, torch.ones(4), torch.zeros(4).long(), b.segments, groups=1)
    with pytest.raises(ValueError, match=r"age - 1 must lie in \[0, 2\)"):
        recipes.geppo(
            b.target,
            b.behaviour,
            b.behaviour,
            b.advantages,
            torch.zeros(5).long(),
            b.segments,
            shares=torch.tensor([0.5, 0.5]),
            clip=0.2,
            mean_age=1.5,
        )
    with pytest.raises(ValueError, match=r"source must have shape \[2\]"):
        recipes.power_mean(
            b.target,
            b.sources,
            torch.zeros(5).long(),
            torch.ones(3),
            b.rewards,
            b.segments,
            episodes=[1, 1, 1],
            discount=GAMMA,
        )
    with pytest.raises(ValueError, match=r"actions must have shape \[5\]"):
        recipes.doubly_robust(
            pairs(b.target),
            b.behaviour,
            torch.zeros(1).long(),
            b.rewards,
            torch.zeros(5, 2),
            b.segments,
            discount=GAMMA,
        )


def test_the_impala_critic_regresses_on_the_same_trace():
    b = ragged([4, 2], 19)
    b.target.requires_grad_()
    bounded = weights.truncate(b.ratios, b.segments, maximum=1.0).log_weights
    trace = advantages.vtrace(
        b.rewards, b.values, b.bootstrap, bounded, bounded, b.segments, discount=GAMMA
    )
    close(gradient(RECIPES["impala"](b), b.target), -trace.advantages / 2)


GOLDEN_NAMES = {
    "seed": "seed",
    "per_decision": "pdis",
    "step": "step",
    "trajectory": "traj_rtg",
    "reinforce": "reinforce_old",
}


@PROBLEMS
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_recipes_give_the_golden_loss_and_gradient(file, name):
    problem = Problem.read(file)
    b = logged(problem, file["batch"], horizon=problem.horizon)
    theta, golden = problem.logits["theta"], file["batch_results"][GOLDEN_NAMES[name]]
    behaviour = tensor(file["batch"], "logp_old", -1, problem.horizon).flatten()
    if name == "reinforce":
        loss = recipes.reinforce(b.log_prob, b.rewards, b.segments, discount=b.discount)
    else:
        recipe = getattr(recipes, name)
        loss = recipe(b.log_prob, behaviour, b.rewards, b.segments, discount=b.discount)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-11)
    close(-gradient(loss, theta), golden["grad"], 1e-11)


@PROBLEMS
def test_ppo_gives_the_golden_loss_and_gradient(file):
    problem = Problem.read(file)
    b = logged(problem, file["batch"], horizon=problem.horizon)
    theta, golden = problem.logits["theta"], file["batch_results"]["ppo_clip0.2"]
    behaviour = tensor(file["batch"], "logp_old", -1, problem.horizon).flatten()
    continuation = returns.reward_to_go(b.rewards, b.segments, discount=b.discount)
    loss = recipes.ppo(b.log_prob, behaviour, continuation - b.value("phi"), b.segments, clip=0.2)
    assert loss.item() == pytest.approx(golden["ppo_loss"], rel=1e-11)
    close(-gradient(loss, theta), golden["grad"], 1e-11)


WHOLE = (
    "seed",
    "per_decision",
    "trajectory",
    "doubly_robust",
    "balance_heuristic",
    "power_mean",
    "pois",
    "gspo",
)


@pytest.mark.parametrize("name", [*WHOLE, "topr"])
def test_fragments_are_refused(name):
    b = ragged([2], 0)
    b.segments = Segments.packed([2], time_start=torch.tensor([3]))
    with pytest.raises(ValueError, match=r"log_weight_start is needed|needs whole episodes"):
        RECIPES[name](b)
