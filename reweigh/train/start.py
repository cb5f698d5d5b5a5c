"""Where runs begin: a new folder, and the environments as a run's checkpoint left them."""

import warnings
from pathlib import Path

import numpy as np
from gymnasium.spaces import Discrete
from torch import nn

from reweigh.acting.collect import Collected, Collector, Position
from reweigh.acting.environments import (
    Slot,
    make,
    make_vector,
    policy_description,
    schema,
)
from reweigh.data.trajectories import Trajectories
from reweigh.train.config import TrainConfig, settled
from reweigh.train.loop import Collect
from reweigh.train.run import Run
from reweigh.train.suited import suited_to


def new_run(path: str | Path, config: TrainConfig) -> Run:
    """Make the folder of a new run; its threshold is the environment's unless one is given.

    Raises:
        ValueError: the environment cannot be made, or the folder holds a run or cannot be written.
    """
    config.validate()
    env = make(config.environment, memory=config.memory)
    try:
        spec, logged = env.spec, schema(config.environment, env)
        config = config.resolved(
            None if spec is None else spec.reward_threshold,
            suited_to(
                "" if spec is None else str(spec.entry_point),
                discrete_actions=logged.discrete_actions,
            ),
        )
        if config.standardise and isinstance(env.observation_space, Discrete):
            raise ValueError(
                f"{config.environment} has observations {env.observation_space}, which are choices "
                "and have no unit: leave out standardise, or give False"
            )
        description = policy_description(
            env, config.hidden, standardise=settled(config.standardise), memory=config.memory
        )
        return Run.create(path, config, logged, description)
    finally:
        env.close()


def collect_here(run: Run) -> Collect:
    """Collect in this process, going on mid-episode where the run's checkpoint left off.

    An episode that was under way is reset by its seed and its logged actions are taken again, which
    brings back its state in any environment that Gymnasium's seeding determines.

    Raises:
        ValueError: the log is another environment's, or a file of the run is damaged.
    """
    config = run.config
    env = make(config.environment, memory=config.memory)
    run.log.require(schema(config.environment, env))
    env.close()
    saved = run.load_checkpoint()
    positions = [] if saved is None else list(saved[0].positions)
    if not positions:
        positions = [Position(i) for i in range(settled(config.environments))]
    version = 0 if saved is None else saved[0].version
    past = _past(run, {p.episode for p in positions if p.time}, version)
    slots = [Slot(p.episode, past[p.episode].actions if p.time else ()) for p in positions]
    environments = make_vector(
        config.environment, seed=config.seed, slots=slots, memory=config.memory
    )
    collector = Collector(environments, config.seed, positions)
    for position, observation in zip(positions, collector.observations, strict=True):
        if position.time and not np.array_equal(
            observation, past[position.episode].final_observations[-1]
        ):
            warnings.warn(
                f"{config.environment} did not come back to where episode {position.episode} was: "
                "its seed and actions do not determine it, so the run goes on, but not bit for bit",
                stacklevel=2,
            )

    def collect(policy: nn.Module, version: int) -> Collected:
        return collector.collect(
            policy,
            version=version,
            steps=settled(config.iteration_steps),
            until_ended=min(settled(config.first_steps), config.steps) if version == 0 else 0,
        )

    return collect


def _past(run: Run, episodes: set[int], version: int) -> dict[int, Trajectories]:
    """Return what policies before `version` logged of some episodes, in order of time."""
    if not episodes:
        return {}
    wanted = np.array(sorted(episodes))
    found = [
        part.select(np.isin(part.episode, wanted) & (part.policy_version < version))
        for part in run.log.stream(max_steps=100_000)
    ]
    everything = Trajectories.concatenate(found).in_episode_order()
    return {e: everything.select(everything.episode == e) for e in episodes}
