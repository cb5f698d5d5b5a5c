"""Everything that a golden file says about a problem, from the problem's parameters and batches."""

from typing import Any

import numpy as np
from golden_estimators import (
    Exact,
    coefficients,
    cut_coefficients,
    doubly_robust,
    doubly_robust_gradients,
    mixture_coefficients,
    normalised,
    prefix,
    value_at_cut,
)
from golden_expectations import (
    expectations,
    mixture_expectations,
    mixture_of,
    second_moment,
    truncated_expectations,
)
from golden_process import Array, Paths, Process, log_softmax

PARAMETERS = ("name", "S", "A", "H", "gamma", "p0", "P", "R", "terminal")
LOGITS = ("theta", "phi", "phi1", "phi2")
Entry = dict[str, Any]


def problem_entry(given: Entry, poison: Entry) -> Entry:
    """The entry of a problem, of which `given` has the parameters, `Qhat` and the three batches."""
    exact = exact_tables(given)
    entry: Entry = {key: given[key] for key in (*PARAMETERS, *LOGITS, "Qhat")}
    everything, environment = exact.process.everything(given["H"])
    second_moments = {
        name: second_moment(everything, environment, exact, name) for name in LOGITS[1:]
    }
    entry["exact"] = {
        **exact_entry(exact),
        **expectations(everything, environment, exact),
        **mixture_expectations(given, everything, environment, exact, second_moments),
        "E_trunc": truncated_expectations(exact),
        "E_W2": second_moments["phi"],
    }
    batch, terminated = batch_of(given["batch"], exact.process)
    entry["batch"] = batch_entry(given["batch"], batch, terminated, exact, poison)
    entry["diagnostics"] = diagnostics(batch, exact)
    entry["batch_results"] = batch_results(batch, exact)
    entry["trunc_batch"] = truncated_batch(batch, exact)
    for key in ("mix_batch", "def_batch"):
        entry[key] = mixture_batch(given[key], exact, poison, second_moments)
    return entry


def exact_tables(given: Entry) -> Exact:
    """Values and visits of the problem's policies."""
    process = Process(
        given["H"],
        given["gamma"],
        np.array(given["p0"]),
        np.array(given["P"]),
        np.array(given["R"]),
        np.array(given["terminal"]),
    )
    policies = {name: np.exp(log_softmax(np.array(given[name]))) for name in LOGITS}
    pairs = {name: process.values(policies[name]) for name in ("theta", "phi")}
    return Exact(
        process,
        policies,
        {name: q for name, (q, _) in pairs.items()} | {"Qhat": np.array(given["Qhat"])},
        {name: v for name, (_, v) in pairs.items()},
        {name: process.occupancy(policies[name]) for name in ("theta", "phi")},
    )


def exact_entry(exact: Exact) -> Entry:
    """What backward and forward recursions give."""
    process, target = exact.process, exact.policies["theta"]
    entry: Entry = {}
    for name in ("theta", "phi"):
        entry[f"J_{name}"] = float(process.first @ exact.v[name][0])
        entry[f"V_{name}"] = exact.v[name]
        entry[f"Q_{name}"] = exact.q[name]
        entry[f"occ_{name}"] = exact.occupancy[name]
        entry[f"mean_len_{name}"] = float(exact.occupancy[name].sum())
    entry["F"] = {
        f"{visits},{continues},{suffix}": process.policy_gradient(
            target, exact.occupancy[visits], exact.q[continues], discounted=suffix == "gt"
        )
        for visits in ("theta", "phi")
        for continues in ("theta", "phi")
        for suffix in ("gt", "nogt")
    }
    # By differentiating the recursion of the values: no occupancy is used.
    _, dv = process.value_gradients(target)
    entry["grad_J"] = np.einsum("s,sxa->xa", process.first, dv[0])
    return entry


def batch_of(given: Entry, process: Process) -> tuple[Paths, Array]:
    """The batch, its mask and rewards recomputed from the states; whether each one terminated."""
    following = np.array(given["next_states"])
    ends = process.terminal[following]
    # A step exists unless an earlier one has led to a terminal state.
    mask = np.cumsum(ends, axis=1) - ends == 0
    states = np.where(mask, np.array(given["states"]), 0)
    actions = np.where(mask, np.array(given["actions"]), 0)
    following = np.where(mask, following, 0)
    rewards = np.where(mask, process.rewards[states, actions, following], 0.0)
    return Paths(states, actions, following, rewards, mask), (ends & mask).any(1)


def log_chances(x: Paths, policy: Array, poison: float) -> Array:
    """`[N, H]`: log-probability of each action; the poison after the end."""
    return np.where(x.mask, np.log(x.chances(policy)), poison)


def batch_entry(given: Entry, x: Paths, terminated: Array, exact: Exact, poison: Entry) -> Entry:
    """The logged batch."""
    return {
        "N": len(x.mask),
        "states": x.states,
        "actions": x.actions,
        "next_states": x.next_states,
        "rewards": np.where(x.mask, x.rewards, poison["rewards"]),
        "mask": x.mask.astype(float),
        "terminated": terminated,
        "logp_old": log_chances(x, exact.policies["phi"], poison["logp_old"]),
        "logp_new": log_chances(x, exact.policies["theta"], poison["logp_new"]),
    }


def diagnostics(x: Paths, exact: Exact) -> Entry:
    """Effective sample sizes, and the weights of the trajectories."""
    w = prefix(x.chances(exact.policies["theta"]) / x.chances(exact.policies["phi"]))
    sizes = w.sum(0) ** 2 / (w**2).sum(0)
    return {
        "ess_step": sizes,
        "ess_traj": float(sizes[-1]),
        "max_w_traj": float(w[:, -1].max()),
        "log_w_traj": np.log(w[:, -1]),
    }


COEFFICIENTS = (
    *("step", "seed", "seed_gt", "pdis", "pdis_nogt", "traj_rtg", "seed_gt_trunc2", "pdis_trunc2"),
    *("seed_gt_prodclip2", "vtrace_1_1", "ppo_clip0.2", "marg_rtg", "marg_pdis", "seed_gt_base"),
    *("pdis_base", "sn_seed_gt", "sn_pdis", "sn_traj", "mix_bh_pdis", "mix_pm_traj"),
    "mix_def_pdis",
)
"""Estimators whose coefficients are in the file."""


def result(name: str, x: Paths, c: Array, exact: Exact, *, divisor: int | None = None) -> Entry:
    """Gradient and loss of coefficients on a batch; the divisor is the number of episodes."""
    divisor = len(c) if divisor is None else divisor
    policy = exact.policies["theta"]
    log_prob = np.log(x.chances(policy))
    entry: Entry = {
        "grad": x.gradients(c, policy).sum(0) / divisor,
        "loss": float(-(c * log_prob).sum() / divisor),
    }
    return entry | ({"coef": c} if name in COEFFICIENTS else {})


def batch_results(x: Paths, exact: Exact) -> Entry:
    """Every estimator on the logged batch."""
    policy = exact.policies["theta"]
    chances = x.chances(policy)
    ratios = chances / x.chances(exact.policies["phi"])
    named = coefficients(x, ratios, exact) | normalised(x, ratios, exact)
    entry = {name: result(name, x, c, exact) for name, c in named.items()}
    advantage = np.where(x.mask, named["reinforce_old_nogt"] - x.at(exact.v["phi"]), 0.0)
    surrogate = np.minimum(ratios * advantage, np.clip(ratios, 0.8, 1.2) * advantage)
    entry["ppo_clip0.2"]["ppo_loss"] = float(-surrogate.sum() / len(ratios))
    steps = int(x.mask.sum())
    entry["pdis_tokenmean"] = result("pdis_tokenmean", x, named["pdis"], exact, divisor=steps)
    for name, critic in {"dr_exactQ": "theta", "dr_misQ": "Qhat"}.items():
        robust = doubly_robust(x, ratios, exact, critic)
        expected = x.at((policy * exact.q[critic]).sum(2))
        total = robust.sampled * np.log(chances) + robust.all_actions * expected
        entry[name] = {
            "grad": robust.gradients.mean(0),
            "coef": robust.sampled,
            "coef_all_actions": robust.all_actions,
            "loss": float(-total.sum() / len(ratios)),
        }
    entry["dr_full"] = {"grad": doubly_robust_gradients(x, ratios, exact).mean(0)}
    return entry


def truncated_batch(batch: Paths, exact: Exact) -> Entry:
    """The batch cut after H - 1 steps."""
    h = exact.process.horizon - 1
    columns = batch.states, batch.actions, batch.next_states, batch.rewards, batch.mask
    x = Paths(*(column[:, :h] for column in columns))
    ratios = x.chances(exact.policies["theta"]) / x.chances(exact.policies["phi"])
    results = {
        name: result(name, x, cut_coefficients(x, ratios, exact, policy), exact)
        for name, policy in {"pdis_cut": None, "pdis_boot_theta": "theta"}.items()
    }
    return {
        "h": h,
        "mask": x.mask.astype(float),
        "truncated": batch.mask[:, h],
        "bootstrap_value": value_at_cut(x, exact, "theta"),
        "results": results,
    }


def mixture_batch(given: Entry, exact: Exact, poison: Entry, second_moments: Entry) -> Entry:
    """A batch of several behaviours, and the estimators on it."""
    process, policies = exact.process, exact.policies
    mask = np.array(given["mask"]) > 0
    states = np.where(mask, np.array(given["states"]), 0)
    actions = np.where(mask, np.array(given["actions"]), 0)
    following = np.zeros_like(states)
    following[:, :-1] = states[:, 1:]
    rewards = np.where(mask, process.rewards[states, actions, following], 0.0)
    # The file does not say where the last step leads: its reward is one of those that exist.
    last, rows = mask.sum(1) - 1, np.arange(len(mask))
    possible = process.rewards[states[rows, last], actions[rows, last]]
    read = np.array(given["rewards"])[rows, last]
    rewards[rows, last] = possible[rows, np.abs(possible - read[:, None]).argmin(1)]
    x = Paths(states, actions, following, rewards, mask)
    mixture = mixture_of(given, second_moments)
    source = np.repeat(np.arange(len(mixture.counts)), mixture.counts)
    named = mixture_coefficients(x, source, mixture, exact)
    entry: Entry = {
        "sources": mixture.names,
        "counts": mixture.counts,
        "src": source,
        "states": states,
        "actions": actions,
        "rewards": np.where(mask, rewards, poison["rewards"]),
        "mask": mask.astype(float),
        "logp_new": log_chances(x, policies["theta"], poison["logp_new"]),
        "logp_src": [log_chances(x, policies[name], poison["logp_src"]) for name in mixture.names],
        "results": {name: result(name, x, c, exact) for name, c in named.items()},
    }
    if mixture.given is None or mixture.paper is None:
        return entry
    return entry | {
        "pm_lambda": mixture.given.share,
        "pm_alpha": mixture.given.proportion,
        "pm_paper_lambda": mixture.paper.share,
        "pm_paper_alpha": mixture.paper.proportion,
    }
