"""Samples for the tests of off-policy evaluation, and estimators written out as loops."""

import math

import numpy as np
import torch

import reweigh as rw
from reweigh.core.sample import Sample
from reweigh.data.batch import steps_of


def sample(lengths, seed=0, *, spread=0.4, discount=0.9, drift=0.0) -> Sample:
    """Episodes of the given lengths with random rewards and log-probabilities."""
    rng = np.random.default_rng(seed)
    steps = int(sum(lengths))
    behaviour = rng.normal(-1.5, 0.3, steps)
    return Sample(
        rewards=torch.from_numpy(rng.normal(0.5, 1.0, steps)),
        log_prob_target=torch.from_numpy(behaviour + rng.normal(drift, spread, steps)),
        log_prob_behaviour=torch.from_numpy(behaviour),
        segments=rw.Segments.packed(lengths),
        discount=discount,
    )


def select(s: Sample, episodes) -> Sample:
    """The given episodes of a packed sample, in the given order."""
    steps = steps_of(s.segments, episodes)
    return Sample(
        log_prob_target=s.log_prob_target[steps],
        log_prob_behaviour=s.log_prob_behaviour[steps],
        segments=rw.Segments.packed(s.segments.lengths[episodes]),
        rewards=s.rewards[steps],
        discount=s.discount,
    )


def episodes(s: Sample) -> list[tuple[list[float], list[float]]]:
    """Log-ratios and rewards of each episode, as lists."""
    ratios = (s.log_prob_target - s.log_prob_behaviour).tolist()
    spans = zip(s.segments.start.tolist(), s.segments.stop.tolist(), strict=True)
    return [(ratios[a:b], s.rewards.tolist()[a:b]) for a, b in spans]


def by_loops(s: Sample) -> dict[str, float]:
    """The classic estimators, an episode and a step at a time."""
    data, gamma = episodes(s), s.discount
    count, horizon = len(data), max(len(r) for _, r in data)
    returns = [sum(gamma**t * r for t, r in enumerate(rewards)) for _, rewards in data]
    whole = [math.exp(sum(ratios)) for ratios, _ in data]
    per_decision = [
        sum(gamma**t * math.exp(sum(ratios[: t + 1])) * r for t, r in enumerate(rewards))
        for ratios, rewards in data
    ]
    weighted = 0.0
    for t in range(horizon):
        weights = [math.exp(sum(ratios[: t + 1])) for ratios, _ in data]
        rewards = [gamma**t * r[t] if t < len(r) else 0.0 for _, r in data]
        weighted += sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
    return {
        "behaviour": sum(returns) / count,
        "importance_sampling": sum(w * g for w, g in zip(whole, returns, strict=True)) / count,
        "per_decision": sum(per_decision) / count,
        "weighted_importance_sampling": sum(w * g for w, g in zip(whole, returns, strict=True))
        / sum(whole),
        "weighted_per_decision": weighted,
    }
