"""Collection: let a policy act in parallel environments and pack what happened.

Each call gives every step once, with the log-prob that the acting policy gave its action. An
episode that is still going when a call ends is cut into fragments: the next call goes on with it.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import nn

from reweigh.acting.environments import RAISED, episode_seed
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True)
class Collected:
    """What one collection brought."""

    trajectories: Trajectories
    steps: int  # environment steps taken, those of dropped episodes included
    returns: tuple[float, ...]  # undiscounted returns of the episodes that ended
    dropped: tuple[str, ...]  # one line for each episode in which the environment raised
    positions: tuple["Position", ...]  # where the environments stand now


@dataclass
class Position:
    """Where one environment stands: its episode's number, the step, and the return so far."""

    episode: int
    time: int = 0
    episode_return: float = 0.0


@dataclass
class Tick:
    """One step of all environments; `live` is False where the step was only a reset."""

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    final_observations: np.ndarray  # what each step led to, before any reset
    terminated: np.ndarray
    truncated: np.ndarray
    live: np.ndarray
    raised: list[str | None]


@dataclass
class Fragment:
    """The steps of one environment from tick `first` to tick `last`, both included."""

    environment: int
    first: int
    last: int
    episode: int
    time_start: int


@dataclass
class Collector:
    """Collects steps in a vector environment, whichever way it resets finished episodes.

    Episode numbers interleave: of `n` environments, the i-th plays episodes i, i + n, i + 2n, ...
    `positions` is where they stand; pass those of an earlier run to go on with it.

    Raises:
        ValueError: a vector environment that does not reset finished episodes by itself.
    """

    environments: VectorEnv
    seed: int
    positions: list[Position] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mode = self.environments.metadata["autoreset_mode"]
        if self.mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(
                f"the vector environment's autoreset_mode is {self.mode}; "
                "make it with SAME_STEP or NEXT_STEP"
            )
        if not self.positions:
            self.positions = [Position(i) for i in range(self.environments.num_envs)]
        self.observations, _ = self.environments.reset()
        self.resetting = np.zeros(self.environments.num_envs, dtype=bool)

    def collect(self, policy: nn.Module, *, version: int, steps: int) -> Collected:
        """Act with `policy` for at least `steps` steps of the environments together.

        The actions are a function of the policy, the run's seed and `version` alone: the global
        random state is neither used nor changed.

        Raises:
            ValueError: the policy gives NaN, an observation is not finite, or the environment
                raised in every episode.
        """
        ticks: list[Tick] = []
        fragments: list[Fragment] = []
        returns: list[float] = []
        dropped: list[str] = []
        taken = 0
        firsts = [0] * len(self.positions)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(episode_seed(self.seed, version))
            while taken < steps:
                tick = self._tick(policy, version)
                now = len(ticks)
                ticks.append(tick)
                taken += int(tick.live.sum())
                for i, position in enumerate(self.positions):
                    if not tick.live[i]:
                        firsts[i] = now + 1
                        continue
                    position.time += 1
                    position.episode_return += float(tick.rewards[i])
                    if not (tick.terminated[i] or tick.truncated[i]):
                        continue
                    if tick.raised[i]:
                        dropped.append(
                            f"episode {position.episode} dropped at step {position.time - 1}: "
                            f"the environment raised {tick.raised[i]}"
                        )
                    else:
                        fragments.append(self._fragment(i, firsts[i], now))
                        returns.append(position.episode_return)
                    self.positions[i] = Position(position.episode + len(self.positions))
                    firsts[i] = now + 1
        end = len(ticks) - 1
        fragments += [
            self._fragment(i, first, end) for i, first in enumerate(firsts) if first <= end
        ]
        if not fragments:
            raise ValueError(f"no step could be kept: {dropped[-1]}")
        return Collected(
            self._pack(ticks, fragments, version),
            taken,
            tuple(returns),
            tuple(dropped),
            tuple(replace(position) for position in self.positions),
        )

    def _tick(self, policy: nn.Module, version: int) -> Tick:
        observations = self.observations
        self._refuse_broken(observations)
        actions, log_probs = sample(policy, observations, version)
        actions = actions.astype(self.environments.single_action_space.dtype, copy=False)
        live = ~self.resetting
        following, rewards, terminated, truncated, infos = self.environments.step(actions)
        ended = terminated | truncated
        final, raised = following, self._raised(infos, ended)
        if self.mode == AutoresetMode.SAME_STEP:
            if ended.any():
                final = following.copy()
                for i in np.flatnonzero(ended):
                    final[i] = infos["final_obs"][i]
        else:
            self.resetting = ended.copy()
        self.observations = following
        return Tick(
            observations,
            actions,
            log_probs,
            np.asarray(rewards, dtype=np.float64).copy(),
            final,
            terminated.copy(),
            truncated.copy(),
            live,
            raised,
        )

    def _refuse_broken(self, observations: np.ndarray) -> None:
        if observations.dtype.kind != "f" or np.isfinite(observations).all():
            return
        i = int(np.argmax(~np.isfinite(observations).reshape(len(observations), -1).all(axis=1)))
        raise ValueError(
            f"observations: {observations[i]} at step {self.positions[i].time} of episode "
            f"{self.positions[i].episode}; only finite numbers can be learnt from, so mend the "
            "environment"
        )

    def _raised(self, infos: dict[str, Any], ended: np.ndarray) -> list[str | None]:
        told = infos.get("final_info", infos) if self.mode == AutoresetMode.SAME_STEP else infos
        if RAISED not in told:
            return [None] * len(ended)
        return [told[RAISED][i] if told[f"_{RAISED}"][i] else None for i in range(len(ended))]

    def _fragment(self, i: int, first: int, last: int) -> Fragment:
        position = self.positions[i]
        return Fragment(i, first, last, position.episode, position.time - (last - first + 1))

    def _pack(self, ticks: list[Tick], fragments: list[Fragment], version: int) -> Trajectories:
        def steps(column: str) -> np.ndarray:
            table = np.stack([getattr(tick, column) for tick in ticks])
            return np.concatenate([table[f.first : f.last + 1, f.environment] for f in fragments])

        def at_end(column: str) -> np.ndarray:
            return np.stack([getattr(ticks[f.last], column)[f.environment] for f in fragments])

        return Trajectories(
            observations=steps("observations"),
            actions=steps("actions"),
            rewards=steps("rewards"),
            log_probs=steps("log_probs"),
            lengths=np.array([f.last - f.first + 1 for f in fragments]),
            final_observations=at_end("final_observations"),
            terminated=at_end("terminated"),
            truncated=at_end("truncated"),
            policy_version=np.full(len(fragments), version),
            episode=np.array([f.episode for f in fragments]),
            seed=np.array([episode_seed(self.seed, f.episode) for f in fragments]),
            time_start=np.array([f.time_start for f in fragments]),
        )


def sample(
    policy: nn.Module, observations: np.ndarray, version: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return one action for each observation, and its log-prob (float64, in nats).

    Raises:
        ValueError: the policy gives NaN.
    """
    distribution = policy(torch.from_numpy(observations))
    diverged = f"policy version {version} gives NaN: it has diverged; try a smaller learning rate"
    try:
        actions = distribution.sample()
    except RuntimeError as error:  # how torch refuses to sample from NaN
        raise ValueError(diverged) from error
    log_probs = distribution.log_prob(actions).double().numpy()
    if not np.isfinite(log_probs).all():
        raise ValueError(diverged)
    return actions.numpy(), log_probs
