"""Logs that several policies sampled, weighed against what all of them together would sample."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reweigh.core.terms import Terms
from reweigh.core.weights import balance_heuristic as balance
from reweigh.core.weights import weigh
from reweigh.data.batch import Batch
from reweigh.evaluation.policies import log_prob
from reweigh.evaluation.sample import Sample
from reweigh.evaluation.states import logged

_TOLERANCE = 0.01


def balance_heuristic(
    sample: Sample, *, sources: Sequence[nn.Module] | Mapping[int, nn.Module]
) -> Terms:
    """Balance heuristic: `(1/N) Σ_i Σ_t γ^t b_it r_it`, `b_t = Π π_θ / Σ_j α_j Π π_j`, up to `t`.

    Veach and Guibas 1995, for trajectories of which a share `α_j` was sampled by policy `j` from
    start to end. Unbiased for V given how many episodes each sampled. A weight is at most that of
    `per_decision` against any source over its share: one close source keeps it small.

    Args:
        sample: The episodes; `α_j` is counted in them.
        sources: The policies that sampled, by the version that the log gives; a sequence is
            numbered from 0.

    Returns:
        Terms. With a single source they are those of `per_decision`.

    Raises:
        ValueError: The sample did not come from a log; the version changes within an episode; a
            version has no policy, or the policy that is given for it is another one.
    """
    batch, _, segments = logged(sample)
    policies = dict(enumerate(sources)) if isinstance(sources, Sequence) else dict(sources)
    version = _versions(batch)
    missing = sorted(set(version.tolist()) - set(policies))
    if missing:
        raise ValueError(
            f"episodes were sampled by policies {missing}, and sources holds {sorted(policies)}: "
            "give the policy of every version that sampled"
        )
    log_probs = torch.stack([log_prob(policy, batch) for policy in policies.values()])
    source = torch.stack([version == key for key in policies])
    proportions = source.double().mean(1)
    _require_same(log_probs, source, list(policies), batch)
    log_weights = balance(sample.log_prob_target, log_probs, proportions, segments)
    terms = segments.total(weigh(log_weights, sample.discounted_rewards))
    return Terms(terms, diagnosed=segments.last(log_weights))


def _versions(batch: Batch) -> Tensor:
    """The version that sampled each episode, `[N]`."""
    segments, version = batch.segments, batch.policy_version
    first = segments.total(version.masked_fill(~segments.is_first, 0))
    changed = segments.inside & (version != segments.spread(first))
    if bool(changed.any()):
        step = int(changed.nonzero()[0])
        episode = int(segments.episode[step])
        raise ValueError(
            f"in episode {int(batch.episode[episode])} policy {int(version[step])} took over from "
            f"policy {int(first[episode])} at step {int(segments.time[step])}: no single policy "
            "sampled it, and a mixture of whole policies does not hold; use per_decision, whose "
            "ratios are to the policy of each step"
        )
    return first


def _require_same(log_probs: Tensor, source: Tensor, versions: list[int], batch: Batch) -> None:
    """Refuses a policy under which an action of its own has another probability than recorded."""
    segments, recorded = batch.segments, batch.log_prob_behaviour
    own = source[:, segments.episode] & segments.inside & recorded.isfinite()
    off = own & ~((log_probs - recorded).abs() <= _TOLERANCE * (1 + recorded.abs()))
    if bool(off.any()):
        j, step = off.nonzero()[0].tolist()
        episode = int(batch.episode[segments.episode[step]])
        raise ValueError(
            f"source {versions[j]} gives log-probability {float(log_probs[j, step]):g} to the "
            f"action of episode {episode}, step {int(segments.time[step])}, and the log holds "
            f"{float(recorded[step]):g}: it is not the policy that sampled it, unless what the log "
            "holds was estimated; import it without log-probabilities then"
        )
