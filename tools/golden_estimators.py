"""Formulas of the estimators: the coefficient `c_t` of each step's score, in loops over time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from golden_process import Array, Paths, Process


@dataclass(frozen=True)
class Exact:
    """Exact tables of a problem; keys of dictionaries are policies, `theta` being the target."""

    process: Process
    policies: dict[str, Array]
    q: dict[str, Array]
    """Of `theta`, `phi`, and the wrong critic `Qhat`."""
    v: dict[str, Array]
    occupancy: dict[str, Array]


def prefix(ratios: Array) -> Array:
    """`w_t = prod_{k<=t} rho_k`; frozen after the end, where ratios are 1."""
    product, running = np.empty_like(ratios), np.ones(len(ratios))
    for t in range(ratios.shape[1]):
        running = running * ratios[:, t]
        product[:, t] = running
    return product


def to_go(rewards: Array, discount: float) -> Array:
    """`x_t = r_t + gamma x_{t+1}`."""
    sums, later = np.empty_like(rewards), np.zeros(len(rewards))
    for t in range(rewards.shape[1] - 1, -1, -1):
        later = rewards[:, t] + discount * later
        sums[:, t] = later
    return sums


def vtrace(x: Paths, ratios: Array, exact: Exact, bound: float) -> Array:
    """`gamma^t min(b, rho_t) (r_t + gamma v_{t+1} - V_t)` with the exact values of the target."""
    gamma, v = exact.process.discount, exact.v["theta"]
    now, after = x.at(v), x.after(v)
    clipped = np.minimum(bound, ratios)
    coefficients, correction = np.zeros_like(ratios), np.zeros(len(ratios))
    for t in range(ratios.shape[1] - 1, -1, -1):
        # `correction` is v_{t+1} - V_{t+1}(s_{t+1}).
        target_after = after[:, t] + correction
        advantage = x.rewards[:, t] + gamma * target_after - now[:, t]
        coefficients[:, t] = gamma**t * clipped[:, t] * advantage
        delta = x.rewards[:, t] + gamma * after[:, t] - now[:, t]
        correction = clipped[:, t] * (delta + gamma * correction)
        correction = np.where(x.mask[:, t], correction, 0.0)
    return coefficients


def coefficients(x: Paths, ratios: Array, exact: Exact) -> dict[str, Array]:
    """`c_t` of every estimator whose trajectories do not depend on each other."""
    gamma = exact.process.discount
    d = gamma ** np.arange(ratios.shape[1])
    w, r = prefix(ratios), x.rewards
    total, g = w[:, -1:], to_go(r, gamma)
    q, q_behaviour = x.at_action(exact.q["theta"]), x.at_action(exact.q["phi"])
    v, v_behaviour = x.at(exact.v["theta"]), x.at(exact.v["phi"])
    advantage = g - v_behaviour
    # m_t = d_t^theta(s_t) / d_t^phi(s_t)
    m = x.at(exact.occupancy["theta"]) / np.where(x.mask, x.at(exact.occupancy["phi"]), 1.0)
    pdis = to_go(d * w * r, 1.0)
    future = np.zeros_like(r)  # sum_{t'>=t} gamma^(t'-t) (prod_{k=t..t'} rho_k) r_t'
    later = np.zeros(len(r))
    for t in range(r.shape[1] - 1, -1, -1):
        later = ratios[:, t] * (r[:, t] + gamma * later)
        future[:, t] = later
    clipped = ((advantage > 0) & (ratios > 1.2)) | ((advantage < 0) & (ratios < 0.8))
    formulas = {
        "reinforce_old": d * g,
        "reinforce_old_nogt": g,
        "step": d * ratios * g,
        "step_nogt": ratios * g,
        "seed": w * g,
        "seed_gt": d * w * g,
        "pdis": pdis,
        "pdis_nogt": pdis / d,
        "traj_rtg": d * total * g,
        "traj_total": total * g[:, :1] + 0.0 * g,
        "vtrace_1_1": vtrace(x, ratios, exact, 1.0),
        "vtrace_inf": vtrace(x, ratios, exact, np.inf),
        "ppo_clip0.2": np.where(clipped, 0.0, ratios * advantage),
        "step_Qtheta": d * ratios * q,
        "prefix_Qtheta": d * w * q,
        "marg_Qtheta": d * m * ratios * q,
        "marg_Qphi": d * m * ratios * q_behaviour,
        "marg_rtg": d * m * ratios * g,
        "marg_pdis": d * m * future,
        "reinforce_old_base": d * advantage,
        "step_base": d * ratios * advantage,
        "seed_gt_base": d * w * advantage,
        "pdis_base": pdis - d * w * v,
        "traj_base": d * total * (g - v),
        "marg_Atheta": d * m * ratios * (q - v),
        "seed_gt_trunc2_base": d * np.minimum(2.0, w) * advantage,
        "pdis_lenmean": pdis / x.lengths[:, None],
    }
    for c in (1, 2, 5):
        formulas[f"seed_gt_trunc{c}"] = d * np.minimum(c, w) * g
        formulas[f"pdis_trunc{c}"] = to_go(d * np.minimum(c, w) * r, 1.0)
        formulas[f"seed_gt_prodclip{c}"] = d * prefix(np.minimum(c, ratios)) * g
    return {name: np.where(x.mask, c, 0.0) for name, c in formulas.items()}


def cut_coefficients(x: Paths, ratios: Array, exact: Exact, policy: str | None) -> Array:
    """PDIS on cut episodes, plus `gamma^h w_{h-1} V_h(s_h)` of a policy where one is alive."""
    h = x.mask.shape[1]
    c = coefficients(x, ratios, exact)["pdis"]
    if policy is None:
        return c
    last = (
        exact.process.discount**h * prefix(ratios)[:, -1:] * value_at_cut(x, exact, policy)[:, None]
    )
    return c + np.where(x.mask, last, 0.0)


def value_at_cut(x: Paths, exact: Exact, policy: str) -> Array:
    """`[N]`: the value of the state after the last of `h` steps; 0 where an episode has ended."""
    h = x.mask.shape[1]
    return np.where(x.mask[:, -1], exact.v[policy][h, x.next_states[:, -1]], 0.0)


def normalised(x: Paths, ratios: Array, exact: Exact) -> dict[str, Array]:
    """`c_t` of the self-normalised estimators: N times each weight over its sum in the batch."""
    gamma, count = exact.process.discount, len(ratios)
    d = gamma ** np.arange(ratios.shape[1])
    w, g = prefix(ratios), to_go(x.rewards, gamma)
    by_time = count * w / w.sum(0)
    alive_sum = np.where(x.mask, w, 0.0).sum(0)
    over_alive = count * w / np.where(alive_sum > 0, alive_sum, 1.0)
    formulas = {
        "sn_seed_gt": d * by_time * g,
        "sn_seed_gt_active": d * over_alive * g,
        "sn_pdis": to_go(d * by_time * x.rewards, 1.0),
        "sn_traj": d * by_time[:, -1:] * g,
    }
    return {name: np.where(x.mask, c, 0.0) for name, c in formulas.items()}


def normalised_parts(
    x: Paths, ratios: Array, exact: Exact
) -> dict[str, list[tuple[Array, Callable[[], Array]]]]:
    """Each self-normalised estimator as `sum of sum_i u_i x_i / sum_j u_j`: weights and terms.

    A term is a function that makes `[N, S, A]`, one for each sum.
    """
    gamma, horizon = exact.process.discount, ratios.shape[1]
    policy = exact.policies["theta"]
    d = gamma ** np.arange(horizon)
    w, g = prefix(ratios), to_go(x.rewards, gamma)
    pdis = coefficients(x, ratios, exact)["pdis"]

    def scores(c: Array, times: range) -> Callable[[], Array]:
        return lambda: x.gradients(c * np.isin(np.arange(horizon), times), policy)

    every = range(horizon)
    lengths = x.lengths.astype(float)
    return {
        "sn_seed_gt": [(w[:, t], scores(d * g, range(t, t + 1))) for t in every],
        "sn_seed_gt_active": [
            (np.where(x.mask[:, t], w[:, t], 0.0), scores(d * g, range(t, t + 1))) for t in every
        ],
        "sn_pdis": [
            (w[:, t], scores((d[t] * x.rewards[:, t])[:, None] + 0.0 * w, range(t + 1)))
            for t in every
        ],
        "sn_traj": [(w[:, -1], scores(d * g, every))],
        # sum_i pdis_i / sum_j T_j, with the term pdis_i / T_i
        "pdis_tokenmean": [(lengths, scores(pdis / lengths[:, None], every))],
    }


@dataclass(frozen=True)
class Robust:
    """The doubly robust estimator of each trajectory."""

    sampled: Array
    """`[N, H]`: `c_t`."""
    all_actions: Array
    """`[N, H]`: `e_t`, of `sum_a grad pi(a|s_t) Qhat_t(s_t, a)`."""
    gradients: Array
    """`[N, S, A]`."""


def doubly_robust(x: Paths, ratios: Array, exact: Exact, critic: str) -> Robust:
    """`V_t = Vhat_t + rho_t (r_t + gamma V_{t+1} - Qhat_t)`, the critic held constant."""
    gamma, table, policy = exact.process.discount, exact.q[critic], exact.policies["theta"]
    w, q = prefix(ratios), x.at_action(table)
    value_table = (policy * table).sum(2)
    v = x.at(value_table)
    count, horizon = ratios.shape
    c, e, later = np.zeros_like(w), np.zeros_like(w), np.zeros(count)
    for t in range(horizon - 1, -1, -1):
        residual = x.rewards[:, t] + gamma * later - q[:, t]
        c[:, t] = gamma**t * w[:, t] * residual
        e[:, t] = gamma**t * (w[:, t - 1] if t else 1.0)
        later = np.where(x.mask[:, t], v[:, t] + ratios[:, t] * residual, 0.0)
    c, e = np.where(x.mask, c, 0.0), np.where(x.mask, e, 0.0)
    gradients = x.gradients(c, policy)
    for t in range(horizon):
        # sum_a grad pi(a|s) Qhat(s, a) in the logits of s
        centred = policy * (table[t] - value_table[t][:, None])
        s = x.states[:, t]
        gradients[np.arange(count), s] += e[:, t, None] * centred[s]
    return Robust(c, e, gradients)


def doubly_robust_gradients(x: Paths, ratios: Array, exact: Exact) -> Array:
    """`[N, S, A]`: derivative of `V_0`, the ratios and the exact critic differentiated too."""
    gamma, policy = exact.process.discount, exact.policies["theta"]
    dq, dv = exact.process.value_gradients(policy)
    q, v = x.at_action(exact.q["theta"]), x.at(exact.v["theta"])
    count, horizon = ratios.shape
    later, d_later = np.zeros(count), np.zeros((count, *policy.shape))
    rows = np.arange(count)
    for t in range(horizon - 1, -1, -1):
        s, a, rho = x.states[:, t], x.actions[:, t], ratios[:, t]
        score = np.zeros((count, *policy.shape))
        score[rows, s] = np.eye(policy.shape[1])[a] - policy[s]
        residual = x.rewards[:, t] + gamma * later - q[:, t]
        slope = dv[t, s] + (rho * residual)[:, None, None] * score
        slope += rho[:, None, None] * (gamma * d_later - dq[t, s, a])
        alive = x.mask[:, t]
        d_later = np.where(alive[:, None, None], slope, 0.0)
        later = np.where(alive, v[:, t] + rho * residual, 0.0)
    return d_later


class PowerMean(NamedTuple):
    """`alpha_j N/n_j w / ((1 - lambda_j) + lambda_j w)`."""

    share: Array
    """`lambda_j`."""
    proportion: Array
    """`alpha_j`."""


@dataclass(frozen=True)
class Mixture:
    """Several behaviours, each of which samples a number of trajectories."""

    names: list[str]
    counts: Array
    given: PowerMean | None = None
    """With the shares that the file gives."""
    paper: PowerMean | None = None
    """With the shares of the paper, from exact second moments."""


def mixture_coefficients(x: Paths, source: Array, mixture: Mixture, exact: Exact) -> dict:
    """`c_t` of the estimators on trajectories `[N]` of the given sources."""
    gamma = exact.process.discount
    d, fractions = gamma ** np.arange(x.mask.shape[1]), mixture.counts / mixture.counts.sum()
    target = x.chances(exact.policies["theta"])
    sources = np.stack([x.chances(exact.policies[name]) for name in mixture.names])
    own = sources[source, np.arange(len(source))]
    w, g, r = prefix(target / own), to_go(x.rewards, gamma), x.rewards
    mixed = np.zeros_like(w)
    for fraction, chances in zip(fractions, sources, strict=True):
        mixed += fraction * prefix(chances)
    b = prefix(target) / mixed
    pdis, trajectory = to_go(d * b * r, 1.0), d * b[:, -1:] * g

    def power(mean: PowerMean) -> Array:
        scale = (mean.proportion / fractions)[source][:, None]
        share = mean.share[source][:, None]
        return scale * w / ((1 - share) + share * w)

    if mixture.given is None or mixture.paper is None:
        formulas = {"mix_def_pdis": pdis, "mix_def_traj": trajectory}
    else:
        formulas = {
            "mix_src_seed_gt": d * w * g,
            "mix_src_pdis": to_go(d * w * r, 1.0),
            "mix_bh_seed_gt": d * b * g,
            "mix_bh_pdis": pdis,
            "mix_bh_traj": trajectory,
            "mix_pm_traj": d * power(mixture.given)[:, -1:] * g,
            "mix_pm_traj_paper": d * power(mixture.paper)[:, -1:] * g,
            "mix_pm_pdis": to_go(d * power(mixture.given) * r, 1.0),
        }
    return {name: np.where(x.mask, c, 0.0) for name, c in formulas.items()}
