"""What the comparisons with verl share."""

from rollouts import gradient
from verl.workers.config import ActorConfig

import reweigh as rw
from reweigh import reduce

AGGREGATIONS = {
    "token-mean": "loss({}, divisor=count_steps)",
    "token-sum": "loss({}, divisor=1)",
    "seq-mean-token-sum": "loss({}, divisor=count_episodes)",
    "seq-mean-token-sum-norm": "loss({}, divisor=count_episodes * horizon)",
    "seq-mean-token-mean": "loss(per_episode_mean({}))",
}


def aggregated(objective, segments, mode, *, horizon):
    if mode == "seq-mean-token-mean":
        return reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    divisor = {
        "token-mean": reduce.count_steps(segments),
        "token-sum": 1,
        "seq-mean-token-sum": reduce.count_episodes(segments),
        "seq-mean-token-sum-norm": reduce.count_episodes(segments) * horizon,
    }[mode]
    return reduce.loss(objective, segments, divisor=divisor)


def check(agree, name, call, batch, ours, theirs):
    """Value and gradient."""
    agree("verl", name, call, ours, theirs)
    agree("verl", name, call, gradient(ours, batch.target), gradient(theirs, batch.target))


def config(**settings):
    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        **{"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, **settings},
    )


def mismatch(batch):
    """What verl corrects: the trainer's log-probabilities to the sampler's, of the same tokens."""
    ratios = rw.log_ratios(batch.flat(batch.old), batch.flat(batch.sampler), batch.segments)
    return batch.old - batch.sampler, ratios
