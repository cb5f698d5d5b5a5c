"""The policy gradient from an estimated state ratio, beside that from products of ratios.

Random Markov decision processes (6 states, 3 actions, transitions and first states from flat
Dirichlet distributions, standard normal rewards, γ = 0.95), softmax policies by table, the target's
logits the behaviour's plus 0.6 times a standard normal (`--spread norm`: plus a random vector of
length 0.6 in each state). 2000 episodes of the behaviour a batch. The figure is the root of the
mean squared error of the gradient over batches, relative to the norm of the exact gradient by
dynamic programming: its mean over the problems, and in brackets the largest quotient, over the
problems, by the error of PDIS on the same batches.

    python benchmarks/state_ratio.py                          # the table of the docs
    python benchmarks/state_ratio.py --horizons 20 --problems 2 --batches 3 --csv rows.csv

`discounted` and `kernel` know no horizon: they aim at the gradient of the endless problem and are
measured against that; the PDIS they are divided by is still that of the finite one.
"""

import argparse
import csv
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import reweigh as rw
from reweigh import marginal

STATES, ACTIONS, DISCOUNT, SPREAD = 6, 3, 0.95, 0.6


@dataclass(frozen=True, eq=False)
class Problem:
    """A finite problem, and two policies by their logits."""

    start: Tensor
    transition: Tensor
    reward: Tensor
    behaviour: Tensor
    target: Tensor

    def gradient(self, horizon: int, discount: float = DISCOUNT) -> Tensor:
        """Exact gradient of the target's return, by differentiating through the model."""
        logits = self.target.clone().requires_grad_()
        policy = logits.softmax(1)
        under = torch.einsum("sa,sau->su", policy, self.transition)
        reward = (policy * self.reward).sum(1)
        value = torch.zeros(STATES, dtype=torch.float64)
        for _ in range(horizon):
            value = reward + discount * under @ value
        return torch.autograd.grad(self.start @ value, logits)[0]


def problem(seed: int, spread: str = "normal") -> Problem:
    """A random problem."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def dirichlet(*shape):
        x = -torch.rand(*shape, generator=g, dtype=torch.float64).log()
        return x / x.sum(-1, keepdim=True)

    behaviour, away = normal(STATES, ACTIONS), normal(STATES, ACTIONS)
    if spread == "norm":
        away = away / away.norm(dim=1, keepdim=True)
    return Problem(
        dirichlet(STATES),
        dirichlet(STATES, ACTIONS, STATES),
        normal(STATES, ACTIONS),
        behaviour,
        behaviour + SPREAD * away,
    )


@dataclass(frozen=True, eq=False)
class Sampled:
    """Episodes of the behaviour, step after step, and what the estimators read in them."""

    problem: Problem
    states: Tensor
    actions: Tensor
    final_states: Tensor
    segments: rw.Segments
    horizon: int
    seed: int

    @cached_property
    def logits(self) -> Tensor:
        """Of the target, a leaf to differentiate."""
        return self.problem.target.clone().requires_grad_()

    @cached_property
    def log_probs(self) -> Tensor:
        """Of every action at every step, under the target."""
        return self.logits.log_softmax(1)[self.states]

    @cached_property
    def log_prob(self) -> Tensor:
        """Of the actions taken, under the target."""
        return self.log_probs.gather(1, self.actions.unsqueeze(1)).squeeze(1)

    @cached_property
    def rewards(self) -> Tensor:
        """Of each step."""
        return self.problem.reward[self.states, self.actions]

    @cached_property
    def ratios(self) -> Tensor:
        """Log-ratios of the actions."""
        behaviour = self.problem.behaviour.log_softmax(1)[self.states, self.actions]
        return rw.log_ratios(self.log_prob, behaviour, self.segments).detach()

    @cached_property
    def never(self) -> Tensor:
        """No episode terminates."""
        return torch.zeros(len(self.segments), dtype=torch.bool)

    @cached_property
    def visits(self) -> marginal.Tabular:
        """States by number."""
        return marginal.Tabular(self.states, self.final_states, self.never, STATES)

    @cached_property
    def tabular(self) -> marginal.StateRatios:
        """Pooled over time."""
        return marginal.finite_horizon(self.visits, self.ratios, self.segments)

    @cached_property
    def one_hot(self) -> tuple[Tensor, Tensor]:
        """States and final states as vectors."""
        one = torch.eye(STATES, dtype=torch.float64)
        return one[self.states], one[self.final_states]

    @cached_property
    def q_by_time(self) -> Tensor:
        """Estimated from the same episodes, `[H, states, A]`."""
        return marginal.action_values_by_time(
            self.visits,
            self.actions,
            self.rewards,
            self.problem.target.log_softmax(1),
            self.segments,
            discount=DISCOUNT,
            horizon=self.horizon,
        )

    @cached_property
    def q_endless(self) -> Tensor:
        """Without horizon, the same at each time."""
        return marginal.action_values(
            self.visits,
            self.actions,
            self.rewards,
            self.problem.target.log_softmax(1),
            self.segments,
            discount=DISCOUNT,
        ).expand(self.horizon, -1, -1)


def simulate(problem: Problem, *, horizon: int, episodes: int, seed: int) -> Sampled:
    """Episodes of the behaviour, all of them side by side."""
    g = torch.Generator().manual_seed(seed)
    policy = problem.behaviour.softmax(1)

    def draw(rows):
        chance = torch.rand(len(rows), 1, generator=g, dtype=torch.float64)
        return (rows.cumsum(1) < chance).sum(1).clamp(max=rows.shape[1] - 1)

    state = draw(problem.start.expand(episodes, -1))
    states, actions = [], []
    for _ in range(horizon):
        action = draw(policy[state])
        states.append(state)
        actions.append(action)
        state = draw(problem.transition[state, action])
    return Sampled(
        problem,
        torch.stack(states, 1).flatten(),
        torch.stack(actions, 1).flatten(),
        state,
        rw.Segments.packed([horizon] * episodes),
        horizon,
        seed,
    )


# State ratios: each a function of the sample to log m, [S], γ^t included.


def by_time(x: Sampled, log_m: Tensor) -> Tensor:
    return log_m + rw.returns.discount_from_start(x.segments, discount=DISCOUNT).log()


def exact(x: Sampled) -> Tensor:
    """What the estimators estimate."""
    flows = []
    for logits in (x.problem.target, x.problem.behaviour):
        under = torch.einsum("sa,sau->su", logits.softmax(1), x.problem.transition)
        mass = [x.problem.start]
        for _ in range(x.horizon - 1):
            mass.append(mass[-1] @ under)
        flows.append(torch.stack(mass))
    return by_time(x, (flows[0] / flows[1]).log()[x.segments.time, x.states])


def tabular(x: Sampled) -> Tensor:
    return by_time(x, x.tabular.log_state_ratios)


def tabular_by_time(x: Sampled) -> Tensor:
    return by_time(
        x, marginal.finite_horizon_by_time(x.visits, x.ratios, x.segments).log_state_ratios
    )


def linear(x: Sampled) -> Tensor:
    visits = marginal.Linear(*coarse(x), x.never)
    return by_time(x, marginal.finite_horizon(visits, x.ratios, x.segments).log_state_ratios)


def coarse(x: Sampled) -> tuple[Tensor, Tensor]:
    """Four features of six states, a constant among them: not enough for any ratio."""
    g = torch.Generator().manual_seed(5)
    project = torch.randn(STATES, 3, generator=g, dtype=torch.float64)

    def features(one_hot):
        return torch.cat([one_hot @ project, torch.ones(len(one_hot), 1)], 1)

    return features(x.one_hot[0]), features(x.one_hot[1])


def discounted(x: Sampled) -> Tensor:
    return marginal.discounted(x.visits, x.ratios, x.segments, discount=DISCOUNT).log_state_ratios


def kernel(x: Sampled) -> Tensor:
    return marginal.kernel_discounted(
        *x.one_hot,
        x.never,
        x.ratios,
        x.segments,
        discount=DISCOUNT,
        generator=torch.Generator().manual_seed(x.seed),
    ).log_state_ratios


def classified(x: Sampled) -> Tensor:
    """From a tenth as many episodes of the target itself, told apart by state and early time."""
    on_policy = replace(x.problem, behaviour=x.problem.target)
    new = simulate(on_policy, horizon=x.horizon, episodes=len(x.segments) // 10, seed=x.seed + 1)
    lengths = torch.cat([x.segments.lengths, new.segments.lengths])
    both = rw.Segments.packed(lengths)
    places = torch.cat([x.states, new.states]) + STATES * both.time.clamp(max=3)
    found = marginal.classifier(
        torch.eye(4 * STATES, dtype=torch.float64)[places],
        both.episode >= len(x.segments),
        both,
        ridge=1e-6,
    )
    return by_time(x, found.log_odds[: x.segments.size])


# Gradient forms: each a composition, a function of the sample and log m to a per-step objective.


def with_q(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ Q ∇log π`."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    values = q[x.segments.time, x.states, x.actions]
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, values, x.segments)


def values(x: Sampled, q: Tensor) -> Tensor:
    """`V^θ` of each time and state."""
    return (q * x.problem.target.softmax(1)).sum(2)


def with_advantage(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ (Q - V) ∇log π`: a baseline under the same weight, which changes no expectation."""
    return with_q(x, log_m, q - values(x, q).unsqueeze(2))


def with_all_actions(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m Σ_a Q ∇π`: nothing of the step is sampled but its state."""
    return rw.surrogates.expected_value(
        x.log_probs, log_m.exp(), q[x.segments.time, x.states], x.segments
    )


def with_future_ratios(x: Sampled, log_m: Tensor) -> Tensor:
    """`m ρ G ∇log π`, with the ratios after the step in G: no critic."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    to_go = rw.returns.target_reward_to_go(x.rewards, x.ratios, x.segments, discount=DISCOUNT)
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, to_go, x.segments)


def with_doubly_robust(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m ρ (G - V) ∇log π`, with the ratios after the step on what the critic leaves open."""
    weight = rw.weights.state_marginal(x.ratios, log_m, x.segments).exp()
    v = values(x, q)[x.segments.time, x.states]
    taken = q[x.segments.time, x.states, x.actions]
    robust = rw.returns.doubly_robust_values(
        x.rewards, x.ratios, v, taken, x.segments, discount=DISCOUNT
    )
    advantages = taken + robust.residuals - v
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, advantages, x.segments)


def with_window(x: Sampled, log_m: Tensor, q: Tensor) -> Tensor:
    """`m_{t-2} ρ_{t-2} ρ_{t-1} ρ_t (Q - V) ∇log π`: the state ratio where a window begins."""
    log_discount = rw.returns.discount_from_start(x.segments, discount=DISCOUNT).log()
    weight = rw.weights.state_marginal(x.ratios, log_m - log_discount, x.segments, steps=3)
    advantages = (q - values(x, q).unsqueeze(2))[x.segments.time, x.states, x.actions]
    weight = (weight + log_discount).exp()
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, advantages, x.segments)


def doubly_robust(x: Sampled) -> Tensor:
    """Products of ratios on what the same critic leaves open: what the critic does without m."""
    q = x.q_by_time
    taken = q[x.segments.time, x.states, x.actions]
    v = values(x, q)[x.segments.time, x.states]
    robust = rw.returns.doubly_robust_values(
        x.rewards, x.ratios, v, taken, x.segments, discount=DISCOUNT
    )
    from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
    inclusive = from_start * rw.weights.prefix(x.ratios, x.segments).exp()
    exclusive = from_start * rw.weights.exclusive_prefix(x.ratios, x.segments).exp()
    sampled = rw.surrogates.weighted_log_prob(x.log_prob, inclusive, robust.residuals, x.segments)
    return sampled + rw.surrogates.expected_value(
        x.log_probs, exclusive, q[x.segments.time, x.states], x.segments
    )


def product(weigh: Callable) -> Callable[[Sampled], Tensor]:
    """Prefix products on the target's rewards (PDIS), the reference."""

    def objective(x: Sampled) -> Tensor:
        log_weights = weigh(x.ratios, x.segments)
        returns = rw.returns.weighted_reward_to_go(
            x.rewards, log_weights, x.segments, discount=DISCOUNT
        )
        from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
        return rw.surrogates.weighted_log_prob(x.log_prob, from_start, returns, x.segments)

    return objective


def self_normalised(ratios: Tensor, segments: rw.Segments) -> Tensor:
    return rw.weights.self_normalise(rw.weights.prefix(ratios, segments), segments)


def step(x: Sampled) -> Tensor:
    """No correction of states or continuation (PPO's, at its first update)."""
    from_start = rw.returns.discount_from_start(x.segments, discount=DISCOUNT)
    to_go = rw.returns.reward_to_go(x.rewards, x.segments, discount=DISCOUNT)
    weight = from_start * rw.weights.step(x.ratios, x.segments).exp()
    return rw.surrogates.weighted_log_prob(x.log_prob, weight, to_go, x.segments)


# name: (objective, whether it aims at the endless problem)
ESTIMATORS: dict[str, tuple[Callable[[Sampled], Tensor], bool]] = {
    "PDIS": (product(rw.weights.prefix), False),
    "PDIS, self-normalised": (product(self_normalised), False),
    "doubly robust, the same critic": (doubly_robust, False),
    "step ratio, logged return": (step, False),
    "tabular: m ρ (Q - V)": (lambda x: with_advantage(x, tabular(x), x.q_by_time), False),
    "tabular: m, all actions": (lambda x: with_all_actions(x, tabular(x), x.q_by_time), False),
    "tabular: window of 3, Q - V": (lambda x: with_window(x, tabular(x), x.q_by_time), False),
    "tabular: m, future ratios on a critic": (
        lambda x: with_doubly_robust(x, tabular(x), x.q_by_time),
        False,
    ),
    "tabular: m ρ Q": (lambda x: with_q(x, tabular(x), x.q_by_time), False),
    "tabular: m, future ratios": (lambda x: with_future_ratios(x, tabular(x)), False),
    "tabular by time: m ρ (Q - V)": (
        lambda x: with_advantage(x, tabular_by_time(x), x.q_by_time),
        False,
    ),
    "linear, 4 features: m ρ (Q - V)": (
        lambda x: with_advantage(x, linear(x), x.q_by_time),
        False,
    ),
    "discounted: m ρ (Q - V)": (lambda x: with_advantage(x, discounted(x), x.q_endless), True),
    "kernel: m ρ (Q - V)": (lambda x: with_advantage(x, kernel(x), x.q_endless), True),
    "classifier, 200 new episodes: m ρ (Q - V)": (
        lambda x: with_advantage(x, classified(x), x.q_by_time),
        False,
    ),
    "exact m: m ρ (Q - V)": (lambda x: with_advantage(x, exact(x), x.q_by_time), False),
    "m = 1: m ρ (Q - V)": (
        lambda x: with_advantage(x, by_time(x, 0 * x.ratios), x.q_by_time),
        False,
    ),
}


def estimate(objective: Callable[[Sampled], Tensor], x: Sampled) -> Tensor:
    """The gradient, `[states, A]`."""
    loss = rw.loss(objective(x), x.segments)
    return -torch.autograd.grad(loss, x.logits, retain_graph=True)[0]


def relative_errors(
    seed: int, *, horizon: int, batches: int, episodes: int, spread: str = "normal"
) -> dict[str, float]:
    """Each estimator's relative root mean squared error in one problem."""
    given = problem(seed, spread)
    finite, endless = given.gradient(horizon), given.gradient(2000)
    squares: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for batch in range(batches):
        x = simulate(given, horizon=horizon, episodes=episodes, seed=1000 * seed + batch)
        for name, (objective, without_horizon) in ESTIMATORS.items():
            want = endless if without_horizon else finite
            error = estimate(objective, x) - want
            squares[name].append(float(error.square().sum() / want.square().sum()))
    return {name: statistics.fmean(found) ** 0.5 for name, found in squares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="the policy gradient from an estimated state ratio"
    )
    parser.add_argument("--horizons", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--problems", type=int, default=6)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--spread", choices=["normal", "norm"], default="normal")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for horizon in given.horizons:
        for seed in range(given.problems):
            errors = relative_errors(
                seed,
                horizon=horizon,
                batches=given.batches,
                episodes=given.episodes,
                spread=given.spread,
            )
            rows += [
                {"horizon": horizon, "problem": seed, "estimator": name, "relative_rmse": error}
                for name, error in errors.items()
            ]
    report(rows, given.horizons)
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | {"relative_rmse": f"{row['relative_rmse']:.4f}"} for row in rows)


def report(rows: list[dict], horizons: list[int]) -> None:
    """Print a table in Markdown."""

    def errors(horizon, name):
        return [
            r["relative_rmse"] for r in rows if r["horizon"] == horizon and r["estimator"] == name
        ]

    print("| estimator |" + "".join(f" H = {h} |" for h in horizons))
    print("|---|" + "---|" * len(horizons))
    for name in ESTIMATORS:
        line = f"| {name} |"
        for horizon in horizons:
            found, pdis = errors(horizon, name), errors(horizon, "PDIS")
            worst = max(a / b for a, b in zip(found, pdis, strict=True))
            line += f" {statistics.fmean(found):.3f} ({worst:.2f}) |"
        print(line)


if __name__ == "__main__":
    main()
