import json

import pytest
import torch
from core_batches import ragged, scatter

from reweigh import recipes
from reweigh.core import advantages, returns
from reweigh.core.segments import Segments
from reweigh.verify.golden import SHIPPED, Problem, tensor
from reweigh.verify.samples import logged

GOLDEN = json.loads(SHIPPED.read_text())
GAMMA = 0.9

CORRECTED = {
    "seed": recipes.seed,
    "per_decision": recipes.per_decision,
    "step": recipes.step,
    "trajectory": recipes.trajectory,
}


def run(name, batch, *, discount=GAMMA):
    """The loss of any recipe on a batch."""
    if name == "reinforce":
        return recipes.reinforce(batch.target, batch.rewards, batch.segments, discount=discount)
    if name == "impala":
        return recipes.impala(
            batch.target,
            batch.behaviour,
            batch.rewards,
            batch.values,
            batch.bootstrap,
            batch.segments,
            discount=discount,
        )
    if name == "ppo":
        return recipes.ppo(
            batch.target, batch.behaviour, batch.advantages, batch.segments, clip=0.2
        )
    return CORRECTED[name](
        batch.target, batch.behaviour, batch.rewards, batch.segments, discount=discount
    )


ALL = ("reinforce", "impala", "ppo", *CORRECTED)


def gradient(loss, leaf):
    return torch.autograd.grad(loss, leaf)[0]


def plain_coefficients(name, b):
    """What multiplies the score if the data are the policy's own, by the textbook."""
    if name == "ppo":
        return b.advantages
    if name == "impala":
        return advantages.gae(
            b.rewards, b.values, b.bootstrap, b.segments, discount=GAMMA, trace_lambda=1.0
        )
    continuation = returns.reward_to_go(b.rewards, b.segments, discount=GAMMA)
    if name == "seed":
        return continuation
    return continuation * returns.discount_from_start(b.segments, discount=GAMMA)


@pytest.mark.parametrize("name", ALL)
def test_on_its_own_data_a_recipe_is_the_plain_policy_gradient(name):
    b = ragged([4, 0, 6, 1], 0)
    b.behaviour = b.target.clone()
    b.target.requires_grad_()
    want = -plain_coefficients(name, b) / len(b.segments)
    torch.testing.assert_close(gradient(run(name, b), b.target), want)


@pytest.mark.parametrize("name", ALL)
def test_every_layout_gives_the_same_loss_and_gradient(name):
    b = ragged([4, 0, 6, 1], 1)
    moved, positions = scatter(b, 2)
    b.target.requires_grad_(), moved.target.requires_grad_()
    loss, moved_loss = run(name, b), run(name, moved)
    torch.testing.assert_close(moved_loss, loss)
    found = gradient(moved_loss, moved.target)
    torch.testing.assert_close(found[positions], gradient(loss, b.target))
    assert found.isfinite().all() and int((found != 0).sum()) <= len(positions)


def test_with_one_step_an_episode_the_scopes_are_one():
    b = ragged([1] * 8, 3)
    want = run("step", b)
    for name in ("seed", "per_decision", "trajectory"):
        torch.testing.assert_close(run(name, b), want)


def test_a_single_final_reward_makes_trajectory_weights_per_decision():
    b = ragged([4, 2, 5], 4)
    b.rewards = torch.where(b.segments.is_last, b.rewards, 0.0)
    torch.testing.assert_close(run("trajectory", b), run("per_decision", b))


def test_per_decision_is_the_gradient_of_the_weighted_return():
    """`-(1/N) Σ γ^t w_t r_t`, differentiated through the weights, without any score."""
    b = ragged([4, 2, 5], 5)
    b.target.requires_grad_()
    discounted = returns.discount_from_start(b.segments, discount=GAMMA) * b.rewards
    direct = -(discounted * b.prefix.exp()).sum() / len(b.segments)
    torch.testing.assert_close(
        gradient(run("per_decision", b), b.target), gradient(direct, b.target)
    )


GOLDEN_NAMES = {
    "seed": "seed",
    "per_decision": "pdis",
    "step": "step",
    "trajectory": "traj_rtg",
    "reinforce": "reinforce_old",
}


@pytest.mark.parametrize("file", GOLDEN["problems"], ids=lambda file: file["name"])
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_recipes_give_the_golden_loss_and_gradient(file, name):
    problem = Problem.read(file)
    b = logged(problem, file["batch"], horizon=problem.horizon)
    theta, golden = problem.logits["theta"], file["batch_results"][GOLDEN_NAMES[name]]
    behaviour = tensor(file["batch"], "logp_old", -1, problem.horizon).flatten()
    if name == "reinforce":
        loss = recipes.reinforce(b.log_prob, b.rewards, b.segments, discount=b.discount)
    else:
        loss = CORRECTED[name](b.log_prob, behaviour, b.rewards, b.segments, discount=b.discount)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-11)
    torch.testing.assert_close(-gradient(loss, theta), tensor(golden, "grad", *theta.shape))


@pytest.mark.parametrize("file", GOLDEN["problems"], ids=lambda file: file["name"])
def test_ppo_gives_the_golden_loss_and_gradient(file):
    problem = Problem.read(file)
    b = logged(problem, file["batch"], horizon=problem.horizon)
    theta, golden = problem.logits["theta"], file["batch_results"]["ppo_clip0.2"]
    behaviour = tensor(file["batch"], "logp_old", -1, problem.horizon).flatten()
    continuation = returns.reward_to_go(b.rewards, b.segments, discount=b.discount)
    loss = recipes.ppo(b.log_prob, behaviour, continuation - b.value("phi"), b.segments, clip=0.2)
    assert loss.item() == pytest.approx(golden["ppo_loss"], rel=1e-11)
    torch.testing.assert_close(-gradient(loss, theta), tensor(golden, "grad", *theta.shape))


@pytest.mark.parametrize("name", ["seed", "per_decision", "trajectory"])
def test_fragments_are_refused(name):
    b = ragged([2], 0)
    b.segments = Segments.packed([2], time_start=torch.tensor([3]))
    with pytest.raises(ValueError, match="log_weight_start is needed"):
        run(name, b)
