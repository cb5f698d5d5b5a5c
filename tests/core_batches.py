"""Stepses for the tests of the core, another layout for them, and the functions to try."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from hypothesis import strategies as st
from torch import Tensor

from reweigh.core import (
    advantages,
    diagnostics,
    divergences,
    marginal,
    reduce,
    returns,
    scan,
    surrogates,
    weights,
)
from reweigh.core.ratios import log_ratios
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments

GARBAGE = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300], dtype=torch.float64)

GAMMA = 0.9

ragged_lengths = st.lists(st.integers(0, 9), min_size=1, max_size=6)
seeds = st.integers(0, 10_000)


@dataclass
class Steps:
    """Steps as a user has them, garbage where none exists, and what estimators take beside them."""

    segments: Segments
    target: Tensor
    behaviour: Tensor
    rewards: Tensor
    values: Tensor
    advantages: Tensor
    sources: Tensor
    bootstrap: Tensor

    @property
    def sample(self) -> Sample:
        """The same steps as a recipe takes them."""
        return Sample(self.target, self.behaviour, self.segments, self.rewards, GAMMA)

    @property
    def ratios(self) -> Tensor:
        return log_ratios(self.target, self.behaviour, self.segments)

    @property
    def prefix(self) -> Tensor:
        return weights.prefix(self.ratios, self.segments)

    @property
    def device(self) -> torch.device:
        return self.target.device

    @property
    def numbers(self) -> Tensor:
        """`[N]`: of each episode."""
        return torch.arange(len(self.segments), device=self.device)

    def to(self, device: str) -> "Steps":
        return Steps(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


STEPS = ("target", "behaviour", "rewards", "values", "advantages")


def ragged(lengths: list[int], seed: int) -> Steps:
    """Random episodes of the given lengths, packed."""
    g = torch.Generator().manual_seed(seed)
    size = sum(lengths)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Steps(
        segments=Segments.packed(lengths),
        target=-normal(size).abs(),
        behaviour=-normal(size).abs(),
        rewards=normal(size),
        values=normal(size),
        advantages=normal(size),
        sources=-normal(3, size).abs(),
        bootstrap=normal(len(lengths)),
    )


def scatter(batch: Steps, seed: int) -> tuple[Steps, Tensor]:
    """The same episodes in another layout, and where each packed step went.

    Shuffled in memory, with holes inside them and gaps between; garbage where no step is.
    """
    g = torch.Generator().manual_seed(seed)
    lengths = batch.segments.lengths.tolist()
    begins = batch.segments.start.tolist()
    start, stop, where, mask = [0] * len(lengths), [0] * len(lengths), {}, []
    for episode in torch.randperm(len(lengths), generator=g).tolist():
        mask += [True] * int(torch.randint(3, (), generator=g))  # a gap that no episode covers
        start[episode] = len(mask)
        mask += [False] * int(torch.randint(3, (), generator=g))
        for step in range(lengths[episode]):
            where[begins[episode] + step] = len(mask)
            mask.append(True)
            mask += [False] * int(torch.randint(4, (), generator=g) // 2)
        stop[episode] = len(mask)
    mask += [True, False]
    positions = torch.tensor([where[i] for i in range(len(where))], dtype=torch.int64)
    segments = Segments(
        torch.tensor(start), torch.tensor(stop), torch.tensor(mask), batch.segments.time_start
    )

    def lay_out(x: Tensor) -> Tensor:
        pick = torch.randint(len(GARBAGE), (*x.shape[:-1], len(mask)), generator=g)
        return GARBAGE[pick].index_copy(-1, positions, x)

    moved = Steps(
        segments,
        **{name: lay_out(getattr(batch, name)) for name in (*STEPS, "sources")},
        bootstrap=batch.bootstrap,
    )
    return moved, positions


def close(found: Tensor, want: Tensor | list, tolerance: float = 1e-12) -> None:
    """Asserts that float64 results agree, relatively and absolutely."""
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(found.double(), want, rtol=tolerance, atol=tolerance)


SHARES = torch.tensor([0.5, 0.3, 0.2])


def shares(b: Steps) -> Tensor:
    return SHARES.to(b.device)


PER_STEP = {
    "log_ratios": lambda b: b.ratios,
    "step": lambda b: weights.step(b.ratios, b.segments),
    "prefix": lambda b: b.prefix,
    "trajectory": lambda b: weights.trajectory(b.ratios, b.segments),
    "exclusive_prefix": lambda b: weights.exclusive_prefix(b.ratios, b.segments),
    "geometric_mean": lambda b: weights.geometric_mean(b.ratios, b.segments),
    "window": lambda b: weights.window(b.ratios, b.segments, steps=3),
    "turn": lambda b: (
        weights.trajectory(b.ratios, turns(b)) if b.segments.existing.numel() else b.ratios
    ),
    "turn_prefix": lambda b: (
        weights.turn_prefix(b.ratios, turns(b), b.segments)
        if b.segments.existing.numel()
        else b.ratios
    ),
    "state_marginal": lambda b: weights.state_marginal(b.ratios, b.values, b.segments, steps=2),
    "balance_heuristic_trajectory": lambda b: weights.balance_heuristic_trajectory(
        b.target, b.sources, shares(b), b.segments
    ),
    "select_behaviour": lambda b: weights.select_behaviour(
        b.sources, (b.advantages.nan_to_num() > 0).long(), b.segments
    ),
    "schedule_sources": lambda b: weights.schedule_sources(
        b.sources, torch.arange(20, device=b.device).reshape(2, 10) % 3, b.segments
    )[1],
    "clip": lambda b: weights.clip(b.prefix, b.segments, minimum=0.6, maximum=1.5).log_weights,
    "leaky_truncate": lambda b: (
        weights.leaky_truncate(b.prefix, b.segments, maximum=1.2, leak=0.3).log_weights
    ),
    "mask_outside": lambda b: b.segments.fill(
        weights.mask_outside(b.prefix, b.segments, minimum=0.6, maximum=1.5).log_weights.exp()
    ),
    "power_mean": lambda b: weights.power_mean(b.prefix, b.segments, share=0.3).log_weights,
    "power_mean by step": lambda b: (
        weights.power_mean(
            b.prefix, b.segments, share=b.values.sigmoid(), exponent=-2.0
        ).log_weights
    ),
    "excess": lambda b: b.segments.fill(
        weights.excess(b.prefix, b.segments, maximum=1.2).log_weights.exp()
    ),
    "reject": lambda b: b.segments.fill(
        weights.reject(b.prefix, b.rewards > 0, b.segments).log_weights.exp()
    ),
    "veto": lambda b: b.segments.fill(
        weights.veto(b.prefix, b.ratios, b.segments, minimum=0.2).log_weights.exp()
    ),
    "self_normalise_groups": lambda b: weights.self_normalise_groups(
        b.prefix, b.numbers % 2, b.segments, groups=2
    ),
    "window_sum": lambda b: scan.window_sum(b.rewards, b.segments, steps=4),
    "previous": lambda b: b.segments.previous(b.values, b.bootstrap),
    "balance_heuristic": lambda b: weights.balance_heuristic(
        b.target, b.sources, shares(b), b.segments
    ),
    "mixture": lambda b: weights.mixture(b.sources, shares(b), b.segments),
    "truncate": lambda b: weights.truncate(b.prefix, b.segments, maximum=1.5).log_weights,
    "touched": lambda b: weights.truncate(b.advantages, b.segments, maximum=0.5).touched.double(),
    "self_normalise": lambda b: weights.self_normalise(b.prefix, b.segments),
    "reward_to_go": lambda b: returns.reward_to_go(
        b.rewards, b.segments, discount=0.9, bootstrap=b.bootstrap
    ),
    "per_decision": lambda b: returns.weighted_reward_to_go(
        b.rewards, b.prefix, b.segments, discount=0.9, bootstrap=b.bootstrap
    ),
    "finite_horizon": lambda b: ratio_of(b, marginal.finite_horizon),
    "finite_horizon_by_time": lambda b: ratio_of(b, marginal.finite_horizon_by_time),
    "discounted": lambda b: ratio_of(b, marginal.discounted, discount=0.9),
    "average_reward": lambda b: ratio_of(b, marginal.average_reward),
    "linear finite_horizon_by_time": lambda b: ratio_of(
        b, marginal.finite_horizon_by_time, describe=linear
    ),
    "linear average_reward": lambda b: ratio_of(b, marginal.average_reward, describe=linear),
    "kernel_discounted": lambda b: (
        kernel(b) if int((b.segments.lengths > 0).sum()) > 1 else 0 * b.ratios.detach()
    ),
    "classifier": lambda b: (
        marginal.classifier(features(b), b.rewards > 0, b.segments, ridge=0.1).log_state_ratios
        if 0 < float(b.segments.mean(b.rewards > 0)) < 1
        else 0 * b.ratios.detach()
    ),
    "action_values": lambda b: b.segments.fill(
        marginal.action_values(
            tabular(b),
            (b.rewards > 0).long(),
            b.rewards,
            torch.zeros(3, 2, device=b.device) - 0.7,
            b.segments,
            discount=0.9,
        )[tabular(b).states.clamp(0, 2), 0]
    ),
    "target_reward_to_go": lambda b: returns.target_reward_to_go(
        b.rewards, b.ratios, b.segments, discount=0.9, bootstrap=b.bootstrap
    ),
    "discount_from_start": lambda b: returns.discount_from_start(b.segments, discount=0.9),
    "doubly_robust values": lambda b: doubly_robust(b).values,
    "doubly_robust residuals": lambda b: doubly_robust(b).residuals,
    "one_step": lambda b: advantages.one_step(
        b.rewards, b.values, b.bootstrap, b.segments, discount=0.9
    ),
    "retrace": lambda b: advantages.retrace(*critic(b), b.ratios, b.segments, discount=0.9),
    "tree_backup": lambda b: advantages.tree_backup(*critic(b), b.target, b.segments, discount=0.9),
    "q_lambda": lambda b: advantages.q_lambda(
        *critic(b), b.values > 0, b.segments, discount=0.9, trace_lambda=0.8
    ),
    "q_pi_lambda": lambda b: advantages.q_pi_lambda(
        *critic(b), b.segments, discount=0.9, trace_lambda=0.8
    ),
    "corrected_action_values": lambda b: advantages.corrected_action_values(
        *critic(b), b.ratios, b.segments, discount=0.9
    ),
    "above_baseline": lambda b: advantages.above_baseline(
        b.rewards, b.prefix, b.values, b.segments
    ),
    "gae": lambda b: advantages.gae(
        b.rewards, b.values, b.bootstrap, b.segments, discount=0.9, trace_lambda=0.8
    ),
    "vtrace targets": lambda b: vtrace(b).targets,
    "vtrace action values": lambda b: vtrace(b).action_values,
    "vtrace advantages": lambda b: vtrace(b).advantages,
    "weighted_log_prob": lambda b: surrogates.weighted_log_prob(
        b.target, b.values.exp(), b.advantages, b.segments
    ),
    "clipped_ratio": lambda b: surrogates.clipped_ratio(
        b.ratios, b.advantages, b.segments, clip=0.2, log_centre=b.values
    ),
    "clipped_ratio, dual": lambda b: surrogates.clipped_ratio(
        b.ratios, b.advantages, b.segments, clip=0.2, clip_high=0.3, dual_clip=1.5
    ),
    "weighted_ratio": lambda b: surrogates.weighted_ratio(
        b.ratios, b.values.exp(), b.advantages, b.segments
    ),
    "expected_value": lambda b: surrogates.expected_value(
        rows(b), b.values.exp(), rows(b) * b.rewards.unsqueeze(1), b.segments
    ),
    "entropy": lambda b: surrogates.entropy(rows(b), b.segments),
    "kl_k1": lambda b: surrogates.kl_k1(b.ratios, b.values, b.segments),
    "kl_k2": lambda b: surrogates.kl_k2(b.ratios, b.values, b.segments),
    "kl_k3": lambda b: surrogates.kl_k3(b.ratios, b.values, b.segments),
    "kl_from_reference": lambda b: surrogates.kl_from_reference(b.ratios, b.values, b.segments),
    "per_episode_mean": lambda b: reduce.per_episode_mean(b.rewards, b.segments),
    "per_episode_mean, survivors": lambda b: reduce.per_episode_mean(
        b.rewards, b.segments, b.values > 0
    ),
    "prefix_sum": lambda b: scan.prefix_sum(b.rewards, b.segments),
    "weighted_recurrence": lambda b: scan.unscale(
        *scan.weighted_recurrence(b.rewards, b.values, b.advantages, b.segments, discount=0.9)
    ),
    "linear_recurrence": lambda b: scan.linear_recurrence(b.rewards, b.values, b.segments),
    "max_plus_recurrence": lambda b: scan.max_plus_recurrence(b.rewards, b.values, b.segments),
    "time": lambda b: b.segments.time.double(),
    "spread": lambda b: b.segments.spread(b.bootstrap),
    "next": lambda b: b.segments.next(b.values, b.bootstrap),
    "kl_categorical": lambda b: divergences.kl_categorical(*two_logits(b), b.segments),
    "renyi2_categorical": lambda b: divergences.renyi2_categorical(*two_logits(b), b.segments),
    "kl_gaussian": lambda b: divergences.kl_gaussian(*two_gaussians(b), b.segments),
    "renyi2_gaussian": lambda b: divergences.renyi2_gaussian(*two_gaussians(b), b.segments),
}

PER_BATCH = {
    "total": lambda b: b.segments.total(b.rewards),
    "last": lambda b: b.segments.last(b.rewards),
    "lengths": lambda b: b.segments.lengths.double(),
    "log_sum_by_time": lambda b: weights.log_sum_by_time(b.prefix, b.segments),
    "fraction touched": lambda b: weights.truncate(b.ratios, b.segments, maximum=1.0).fraction,
    "mean": lambda b: b.segments.mean(b.rewards),
    "loss": lambda b: reduce.loss(b.rewards, b.segments),
    "count_episodes": lambda b: reduce.count_episodes(b.segments, b.values > 0),
    "count_steps": lambda b: reduce.count_steps(b.segments, b.values > 0),
    "renyi_sample_size": lambda b: surrogates.renyi_sample_size(b.rewards, b.segments),
    "pois_bound": lambda b: surrogates.pois_bound(
        b.prefix, b.bootstrap, b.segments.total(b.rewards).exp().sum(), b.segments, delta=0.3
    ),
    "approximate_kl": lambda b: diagnostics.approximate_kl(b.ratios, b.segments),
    "ess_by_time": lambda b: diagnostics.ess_by_time(b.prefix, b.segments),
}


def features(b: Steps) -> Tensor:
    return torch.stack([b.values, b.advantages], 1)


def tabular(b: Steps) -> marginal.Tabular:
    """Three states, a state that is none where there is no step; every other episode terminates."""
    states = torch.where(b.segments.inside, (b.values > 0).long() + (b.rewards > 0).long(), -7)
    episode = b.numbers
    return marginal.Tabular(states, episode % 3, episode % 2 == 0, 3)


def linear(b: Steps) -> marginal.Linear:
    final = torch.stack([b.bootstrap, b.bootstrap.cos()], 1)
    return marginal.Linear(features(b), final, tabular(b).terminated, ridge=0.1)


def ratio_of(b: Steps, estimate: Callable, describe: Callable = tabular, **knobs: float) -> Tensor:
    m = estimate(describe(b), b.ratios, b.segments, **knobs).log_state_ratios.exp()
    return b.segments.fill(m)


def kernel(b: Steps) -> Tensor:
    visits = linear(b)
    found = marginal.kernel_discounted(
        visits.features,
        visits.final_features,
        visits.terminated,
        b.ratios,
        b.segments,
        discount=0.9,
        generator=torch.Generator().manual_seed(0),
        ridges=[0.1],
    )
    return b.segments.fill(found.log_state_ratios.exp())


def turns(b: Steps) -> Segments:
    return b.segments.split((b.rewards > 0).long())


def rows(b: Steps) -> Tensor:
    """`[S, A]`: three actions' numbers at each step."""
    return torch.stack((b.target, b.values, b.advantages), dim=1)


def critic(b: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, V, Q and bootstrap."""
    return b.rewards, b.values, b.advantages, b.bootstrap


def doubly_robust(b: Steps) -> returns.DoublyRobust:
    return returns.doubly_robust_values(
        b.rewards,
        b.ratios,
        b.values,
        b.advantages,
        b.segments,
        discount=0.9,
        bootstrap=b.bootstrap,
    )


def vtrace(b: Steps) -> advantages.VTrace:
    bounds = (weights.truncate(b.ratios, b.segments, maximum=x).log_weights for x in (1.3, 0.9))
    return advantages.vtrace(
        b.rewards, b.values, b.bootstrap, *bounds, b.segments, discount=0.9, trace_lambda=0.8
    )


def two_logits(b: Steps) -> tuple[Tensor, Tensor]:
    return torch.stack([b.target, b.values], 1), torch.stack([b.behaviour, b.rewards], 1)


def two_gaussians(b: Steps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean_p, mean_q = torch.stack([b.target, b.values], 1), torch.stack([b.behaviour, b.rewards], 1)
    return (
        mean_p,
        b.advantages.clamp(0.5, 1.5)[:, None].expand(-1, 2),
        mean_q,
        torch.full_like(mean_q, 1.2),
    )
