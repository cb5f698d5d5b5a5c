"""The training loop: collect with the current policy, log, improve on the last policies' steps.

`train` is a generator: it yields the progress of each iteration once it can no longer be lost, so
whoever iterates decides what to show and when to stop.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from reweigh.acting.collect import Collected
from reweigh.acting.environments import episode_seed
from reweigh.acting.evaluate import evaluate
from reweigh.core.diagnostics import effective_sample_size, read, weight_health
from reweigh.data.batch import Batch
from reweigh.data.trajectories import Trajectories
from reweigh.train.config import TrainConfig, settled
from reweigh.train.improve import Improvement, improve
from reweigh.train.learner import Learner
from reweigh.train.progress import HISTOGRAM_BINS, Progress
from reweigh.train.run import Checkpoint, Run

Collect = Callable[[nn.Module, int], Collected]
"""Samples steps with a policy, given its version: here, or wherever the environments are."""

CONFIRMING_EPISODES = 100
"""A threshold counts as reached when the mean return over this many episodes is there."""


Improve = Callable[[Learner, Batch, TrainConfig, torch.Generator], Improvement]
"""Improves the learner in place on a batch: `improve`, with other arguments or a step before it."""


def train(run: Run, collect: Collect, *, improve: Improve = improve) -> Iterator[Progress]:
    """Go on with a run until it reaches its threshold, its steps or its minutes.

    Everything that an iteration draws at random comes from the run's seed and the policy's version,
    so going on from a checkpoint is the same as never having stopped.

    Raises:
        ValueError: the policy diverged, or the environment gives what cannot be learnt from.
        OSError: the disk is full. What was committed stays; the run can be resumed.
    """
    config = run.config
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        learner, checkpoint = _start(run)
        window = _logged(run, first_version=max(0, checkpoint.version - config.reuse + 1))
        while finished(config, checkpoint) is None:
            checkpoint, progress = _iterate(run, collect, improve, learner, checkpoint, window)
            yield progress
    finally:
        torch.set_num_threads(threads)


def finished(config: TrainConfig, checkpoint: Checkpoint) -> str | None:
    """Return the option that ends the run at a checkpoint, or None if it goes on."""
    if checkpoint.steps_to_threshold is not None:
        return "threshold"
    if checkpoint.steps >= config.steps:
        return "steps"
    if config.minutes is not None and checkpoint.seconds >= 60 * config.minutes:
        return "minutes"
    return None


def _start(run: Run) -> tuple[Learner, Checkpoint]:
    description = run.description
    learner = Learner.create(
        description, seed=run.config.seed, learning_rate=settled(run.config.learning_rate)
    )
    saved = run.load_checkpoint()
    if saved is None:
        checkpoint = Checkpoint()
        run.policies.save(0, learner.policy.state_dict(), metadata={"description": description})
        run.save_checkpoint(checkpoint, learner.state())
        return learner, checkpoint
    checkpoint, state = saved
    learner.load(run.policies.load(checkpoint.version), state)
    run.forget_metrics_from(checkpoint.version)
    return learner, checkpoint


def _logged(run: Run, *, first_version: int) -> dict[int, Trajectories]:
    """Return what the log holds, by policy version."""
    logged = run.log.read(first_version=first_version)
    versions = np.unique(logged.policy_version).tolist()
    return {v: logged.select(logged.policy_version == v) for v in versions}


def _iterate(
    run: Run,
    collect: Collect,
    improve: Improve,
    learner: Learner,
    checkpoint: Checkpoint,
    window: dict[int, Trajectories],
) -> tuple[Checkpoint, Progress]:
    """Do one iteration; when it returns, the next checkpoint is in place."""
    config, version = run.config, checkpoint.version
    began, began_cpu = time.perf_counter(), time.process_time()

    collected = collect(learner.policy, version)
    if version not in window:  # a run killed after this commit finds its steps there already
        run.log.append(collected.trajectories)
        window[version] = collected.trajectories
    window.pop(version - config.reuse, None)

    batch = Batch.of(Trajectories.concatenate(list(window.values())))
    generator = torch.Generator().manual_seed(episode_seed(config.seed, version))
    improvement = improve(learner, batch, config, generator)

    steps = checkpoint.steps + collected.steps
    recent = (*checkpoint.recent_returns, *collected.returns)[-CONFIRMING_EPISODES:]
    trained_cpu = time.process_time()
    due = steps // config.check_every > checkpoint.steps // config.check_every
    returns = _check(learner.policy, config) if due and config.evaluation_episodes else None
    reached = _reached(config, returns, recent)

    run.policies.save(
        version + 1, learner.policy.state_dict(), metadata={"description": run.description}
    )
    following = replace(
        checkpoint,
        version=version + 1,
        steps=steps,
        episodes=checkpoint.episodes + len(collected.returns),
        seconds=checkpoint.seconds + time.perf_counter() - began,
        cpu_seconds=checkpoint.cpu_seconds + trained_cpu - began_cpu,
        steps_used=checkpoint.steps_used + improvement.epochs * len(batch),
        steps_to_threshold=steps if reached else None,
        recent_returns=recent,
        positions=collected.positions,
    )
    progress = _progress(following, collected, returns, batch, improvement)
    run.add_metrics(progress)
    run.save_checkpoint(following, learner.state())
    return following, progress


def _check(policy: nn.Module, config: TrainConfig) -> np.ndarray:
    """Return the greedy policy's returns: a few episodes, more where they reach the threshold."""

    def play(episodes: int) -> np.ndarray:
        return evaluate(
            policy,
            config.environment,
            episodes=episodes,
            seed=config.seed,
            memory=config.memory,
        )

    returns = play(config.evaluation_episodes)
    if config.threshold is not None and returns.mean() >= config.threshold:
        returns = play(max(CONFIRMING_EPISODES, config.evaluation_episodes))
    return returns


def _reached(config: TrainConfig, returns: np.ndarray | None, recent: tuple[float, ...]) -> bool:
    """Tell whether the greedy policy is there or, if it is never checked, the last episodes are."""
    seen = recent if config.evaluation_episodes == 0 else returns
    if config.threshold is None or seen is None or len(seen) < CONFIRMING_EPISODES:
        return False
    return float(np.mean(seen)) >= config.threshold


def _progress(
    checkpoint: Checkpoint,
    collected: Collected,
    returns: np.ndarray | None,
    batch: Batch,
    improvement: Improvement,
) -> Progress:
    log_weights = improvement.log_ratios
    summary = read(weight_health(log_weights)).total
    ages = int(batch.policy_version.max()) - batch.policy_version
    by_age = [log_weights[ages == age] for age in range(int(ages.max()) + 1)]
    log10 = (log_weights / np.log(10)).clamp(-1.999, 1.999)
    return Progress(
        iteration=checkpoint.version - 1,
        steps=checkpoint.steps,
        episodes=checkpoint.episodes,
        seconds=checkpoint.seconds,
        cpu_seconds=checkpoint.cpu_seconds,
        training_return=float(np.mean(collected.returns)) if collected.returns else None,
        evaluation_return=None if returns is None else float(returns.mean()),
        evaluation_episodes=0 if returns is None else len(returns),
        reused_steps=len(batch),
        uses=checkpoint.steps_used / checkpoint.steps,
        epochs=improvement.epochs,
        ended_by=improvement.ended_by,
        ess=summary.effective_sample_size / len(batch),
        mean_weight=summary.mean,
        max_weight=summary.maximum,
        kl=improvement.kl,
        entropy=improvement.entropy,
        policy_loss=improvement.policy_loss,
        value_loss=improvement.value_loss,
        ess_by_age=tuple(
            float(effective_sample_size(w)) / len(w) if len(w) else 0.0 for w in by_age
        ),
        mean_weight_by_age=tuple(float(w.exp().mean()) if len(w) else 0.0 for w in by_age),
        weight_histogram=tuple(
            int(n) for n in torch.histc(log10, bins=HISTOGRAM_BINS, min=-2, max=2)
        ),
        dropped=collected.dropped,
    )
