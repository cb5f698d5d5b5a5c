"""Action values from a log, the target's reward-to-go, and the gradients they make with a ratio."""

import pytest
import torch
from core_batches import close, ragged
from marginal_samples import problem, simulate

from reweigh.core import marginal, reduce, returns, surrogates, weights

ENDING = simulate(problem(1, ending=0.4), 1, episodes=60, horizon=9, cut=0.1)


def fitted(x, *, discount, horizon=None):
    log_probs = x.problem.target.log_softmax(1)
    where = (x.visits, x.actions, x.rewards, log_probs, x.segments)
    if horizon is None:
        return marginal.action_values(*where, discount=discount)
    return marginal.action_values_by_time(*where, discount=discount, horizon=horizon)


def by_counting(x, *, discount, horizon):
    """Backwards through the model of the counts, one time and one pair after the other."""
    policy, count = x.problem.target.softmax(1), len(x.problem.start)
    following = x.visits.moves(x.segments)[1].tolist()
    pairs = list(zip(x.states.tolist(), x.actions.tolist(), strict=True))
    value, found = [0.0] * count, []
    for _ in range(horizon):
        q = torch.zeros(count, policy.shape[1]).double()
        for pair in set(pairs):
            here = [k for k, other in enumerate(pairs) if other == pair]
            for k in here:
                ended = x.segments.is_last[k] and x.terminated[x.segments.episode[k]]
                future = 0.0 if ended else discount * value[following[k]]
                q[pair] += (float(x.rewards[k]) + future) / len(here)
        value = (policy * q).sum(1).tolist()
        found.append(q)
    return torch.stack(found[::-1])


def test_values_by_time_are_backward_induction():
    want = by_counting(ENDING, discount=0.9, horizon=9)
    close(fitted(ENDING, discount=0.9, horizon=9), want, 1e-11)


def test_values_without_horizon_are_those_far_from_it():
    close(fitted(ENDING, discount=0.9), fitted(ENDING, discount=0.9, horizon=400)[0], 1e-11)


def test_without_a_future_they_are_mean_rewards():
    x = ENDING
    want = torch.where(fitted(x, discount=0.0) == 0, 0.0, x.problem.reward)
    close(fitted(x, discount=0.0), want)
    close(fitted(x, discount=0.9, horizon=10)[-1], want)


def test_values_tend_to_the_true_ones():
    given, errors = problem(4, ending=0.3), []
    want = given.values(8, 0.95)[0]
    for episodes in (300, 19_200):
        x = simulate(given, 4, episodes=episodes, horizon=8)
        errors.append(float((fitted(x, discount=0.95, horizon=8) - want).square().mean().sqrt()))
    assert errors[1] < 0.3 * errors[0] < 0.2


def test_refuses_with_the_users_values():
    x = ENDING
    log_probs = x.problem.target.log_softmax(1)
    with pytest.raises(ValueError, match=r"actions hold 3, outside \[0, 3\)"):
        marginal.action_values(
            x.visits, x.actions + 1, x.rewards, log_probs, x.segments, discount=0.9
        )
    with pytest.raises(ValueError, match=r"log_probs must .* \[5, actions\]"):
        marginal.action_values(
            x.visits, x.actions, x.rewards, log_probs[1:], x.segments, discount=0.9
        )
    with pytest.raises(ValueError, match="horizon must be an integer of at least 9, got 3"):
        fitted(x, discount=0.9, horizon=3)


def test_the_targets_reward_to_go_is_its_recurrence():
    b = ragged([4, 0, 3], 5)
    found = returns.target_reward_to_go(
        b.rewards, b.ratios, b.segments, discount=0.9, bootstrap=b.bootstrap
    )
    for begin, end, final in ((0, 4, b.bootstrap[0]), (4, 7, b.bootstrap[2])):
        g = b.rewards[end - 1] + 0.9 * final
        close(found[end - 1], g)
        for t in range(end - 2, begin - 1, -1):
            g = b.rewards[t] + 0.9 * b.ratios[t + 1].exp() * g
            close(found[t], g)
    plain = returns.target_reward_to_go(b.rewards, b.ratios, b.segments, discount=0.9)
    per_decision = returns.weighted_reward_to_go(b.rewards, b.prefix, b.segments, discount=0.9)
    close(b.prefix.exp() * plain, per_decision)
    logged = returns.target_reward_to_go(b.rewards, 0 * b.ratios, b.segments, discount=0.9)
    close(logged, returns.reward_to_go(b.rewards, b.segments, discount=0.9))


def test_the_targets_reward_to_go_is_differentiable():
    b = ragged([3, 2], 6)
    inputs = (b.rewards.requires_grad_(), b.ratios.detach().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda r, x: returns.target_reward_to_go(r, x, b.segments, discount=0.9), inputs
    )


def pdis(x, log_prob):
    per_decision = returns.weighted_reward_to_go(
        x.rewards, weights.prefix(x.ratios, x.segments), x.segments, discount=0.95
    )
    from_start = returns.discount_from_start(x.segments, discount=0.95)
    return surrogates.weighted_log_prob(log_prob, from_start, per_decision, x.segments)


def with_state_ratio(estimate):
    """`γ^t m_t ρ_t (Q_t - V_t) ∇log π`, both m and Q from the sample itself."""

    def objective(x, log_prob):
        log_m = estimate(x)
        weight = weights.state_marginal(x.ratios, log_m, x.segments).exp()
        weight = weight * returns.discount_from_start(x.segments, discount=0.95)
        q = fitted(x, discount=0.95, horizon=x.segments.most_steps)
        v = (q * x.problem.target.softmax(1)).sum(2, keepdim=True)
        advantages = (q - v)[x.segments.time, x.states, x.actions]
        return surrogates.weighted_log_prob(log_prob, weight, advantages, x.segments)

    return objective


def pooled(x):
    return marginal.finite_horizon(x.visits, x.ratios, x.segments).log_state_ratios


def separate(x):
    return marginal.finite_horizon_by_time(x.visits, x.ratios, x.segments).log_state_ratios


@pytest.mark.parametrize("horizon", [20, 100])
def test_the_gradient_has_a_fifth_of_the_error_of_products(horizon):
    """Six states, three actions, logits 0.6 standard normals apart, 2000 episodes."""
    squares = {"pdis": 0.0, "pooled": 0.0, "by time": 0.0}
    for seed in (21, 22, 23):
        given = problem(seed, states=6, actions=3)
        exact = given.values(horizon, 0.95)[1]
        x = simulate(given, seed, episodes=2000, horizon=horizon)
        logits = given.target.clone().requires_grad_()
        log_prob = logits.log_softmax(1)[x.states, x.actions]
        for name, objective in {
            "pdis": pdis,
            "pooled": with_state_ratio(pooled),
            "by time": with_state_ratio(separate),
        }.items():
            loss = reduce.loss(objective(x, log_prob), x.segments)
            (gradient,) = torch.autograd.grad(-loss, logits, retain_graph=True)
            squares[name] += float((gradient - exact).square().sum() / exact.square().sum())
    assert max(squares["pooled"], squares["by time"]) < squares["pdis"] / 25
