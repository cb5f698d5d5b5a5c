"""Moments of a gradient by a recurrence over state and log-weight, at horizons of any length."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from which_weight_problem import ACTIONS, DISCOUNT, STATES, Moments, Problem, moments


class Walk(NamedTuple):
    """An estimator `Σ_t γ^t u_t R_t score_t` with `R_t = k_t r_t + γ R_{t+1}`.

    Both factors are functions of the prefix weight and the step's own ratio.
    """

    reward: Callable[[Tensor, Tensor], Tensor]
    """`k`."""
    score: Callable[[Tensor, Tensor], Tensor]
    """`u`."""


def recurrence_moments(p: Problem, walk: Walk, horizons: tuple[int, ...]) -> dict[int, Moments]:
    """The moments of a walk by horizon, by dynamic programming.

    With `Y_t = u_t R_t score_t + γ Y_{t+1}`, the expectations of `R`, `Y`, `R²`, `R Y` and `|Y|²`
    given state and log-weight form a closed recurrence backwards in time.
    """
    reach = 3 * max(horizons)
    log_weight = torch.arange(-reach, reach + 1)
    shape = (STATES, ACTIONS, len(log_weight))
    after = log_weight + p.steps.long().unsqueeze(2)
    weight = (p.distance * after.double()).exp()
    ratio = p.ratio.unsqueeze(2).expand(shape)
    k = walk.reward(weight, ratio) * p.reward.unsqueeze(2)
    u = walk.score(weight, ratio)
    score = torch.zeros(STATES, ACTIONS, 1, STATES, ACTIONS, dtype=torch.float64)
    for s in range(STATES):
        score[s, :, 0, s] = torch.eye(ACTIONS, dtype=torch.float64) - p.target[s]
    score = score.flatten(3)
    place = (after.clamp(-reach, reach) + reach).unsqueeze(3)

    def over_states(x: Tensor) -> Tensor:
        """Expectation over the next state, at the weight after the action."""
        x = torch.einsum("sat,tnd->sand", p.transition, x)
        return x.gather(2, place.expand(-1, -1, -1, x.shape[3]))

    def over_actions(x: Tensor) -> Tensor:
        """Expectation over the behaviour's action."""
        return torch.einsum("sa,sand->snd", p.behaviour, x)

    k, u, squared = k.unsqueeze(3), u.unsqueeze(3), score.square().sum(3, keepdim=True)
    size, zero = STATES * ACTIONS, torch.zeros(STATES, len(log_weight), 1, dtype=torch.float64)
    r, rr, y, ry, yy = zero, zero, zero.repeat(1, 1, size), zero.repeat(1, 1, size), zero
    by_horizon = {}
    for horizon in range(1, max(horizons) + 1):
        r, rr, y, ry, yy = (over_states(x) for x in (r, rr, y, ry, yy))
        cross = k * y + DISCOUNT * ry
        r, rr = k + DISCOUNT * r, k.square() + 2 * DISCOUNT * k * r + DISCOUNT**2 * rr
        inner = (score * cross).sum(3, keepdim=True)
        yy = u.square() * rr * squared + 2 * DISCOUNT * u * inner + DISCOUNT**2 * yy
        y, ry = u * r * score + DISCOUNT * y, u * rr * score + DISCOUNT * cross
        r, rr, y, ry, yy = (over_actions(x) for x in (r, rr, y, ry, yy))
        if horizon in horizons:
            mean = p.initial @ y[:, reach]
            second_moment = p.initial @ yy[:, reach, 0]
            by_horizon[horizon] = moments(mean, second_moment, p.gradient(horizon))
    return by_horizon


def marginal_moments(p: Problem, horizon: int) -> Moments:
    """The same for `γ^t m_t ρ_t Q_t^θ(s_t, a_t) score_t`, which has no sum over later rewards."""
    visits = (p.visits(p.target, horizon) / p.visits(p.behaviour, horizon)).unsqueeze(2)
    _, action_values = p.values(p.target, horizon)
    coefficient = torch.where(visits.isfinite(), visits, 0.0) * p.ratio * action_values
    score = torch.zeros(STATES, ACTIONS, STATES, ACTIONS, dtype=torch.float64)
    for s in range(STATES):
        score[s, :, s] = torch.eye(ACTIONS, dtype=torch.float64) - p.target[s]
    score = score.flatten(2)
    y = torch.zeros(STATES, STATES * ACTIONS, dtype=torch.float64)
    yy = torch.zeros(STATES, dtype=torch.float64)
    for t in reversed(range(horizon)):
        c, y, yy = coefficient[t], p.transition @ y, p.transition @ yy
        cross = (score * y).sum(2)
        yy = c.square() * score.square().sum(2) + 2 * DISCOUNT * c * cross + DISCOUNT**2 * yy
        y = c.unsqueeze(2) * score + DISCOUNT * y
        y = torch.einsum("sa,sad->sd", p.behaviour, y)
        yy = (p.behaviour * yy).sum(1)
    return moments(p.initial @ y, p.initial @ yy, p.gradient(horizon))


UNIT = Walk(lambda w, _: torch.ones_like(w), lambda w, _: torch.ones_like(w))
"""No weight at all."""
