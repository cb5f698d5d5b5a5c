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
from reweigh.acting.sampling import Sampler, sampler_of
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
    """One step of all environments."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


@dataclass
class Fragment:
    """The steps of one environment from tick `first` to tick `last`, both included."""

    environment: int
    first: int
    last: int
    episode: int
    time_start: int
    final_observation: Any  # what the last step led to, before any reset
    terminated: bool = False
    truncated: bool = False


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
        observations, _ = self.environments.reset()
        self.observations = np.array(observations)
        self.resetting = np.zeros(self.environments.num_envs, dtype=bool)

    def collect(
        self, policy: nn.Module, *, version: int, steps: int, until_ended: int = 0
    ) -> Collected:
        """Act with `policy` for at least `steps` steps of the environments together.

        If no episode has ended by then, it acts for as many steps again, and so on, until one has
        or `until_ended` steps are taken.

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
        taken, count = 0, len(self.positions)
        # What ticks change in all environments at once; written back to the positions.
        firsts = np.zeros(count, dtype=np.int64)
        times = np.array([position.time for position in self.positions])
        sums = np.array([position.episode_return for position in self.positions])
        seed = episode_seed(self.seed, version)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            sampler = sampler_of(policy, version=version, seed=seed)
            wanted = steps
            while taken < wanted:
                self._refuse_broken(times)
                resets = self.resetting
                tick, terminated, truncated, infos = self._tick(sampler)
                ticks.append(tick)
                now = len(ticks) - 1
                times += 1
                sums += tick.rewards
                taken += count
                if self.mode == AutoresetMode.NEXT_STEP and resets.any():  # their step was none
                    firsts[resets], times[resets], sums[resets] = now + 1, 0, 0.0
                    taken -= int(resets.sum())
                ends = (terminated | truncated) & ~resets
                for i in np.flatnonzero(ends).tolist() if np.count_nonzero(ends) else ():
                    position = self.positions[i]
                    position.time, position.episode_return = int(times[i]), float(sums[i])
                    if raised := self._raised(infos, i):
                        dropped.append(
                            f"episode {position.episode} dropped at step {position.time - 1}: "
                            f"the environment raised {raised}"
                        )
                    else:
                        ended = bool(terminated[i]), bool(truncated[i])
                        final = self._final(infos, i)
                        fragments.append(self._fragment(i, int(firsts[i]), now, final, *ended))
                        returns.append(position.episode_return)
                    self.positions[i] = Position(position.episode + count)
                    firsts[i], times[i], sums[i] = now + 1, 0, 0.0
                if wanted <= taken < until_ended and not returns:
                    wanted += steps
            for i, position in enumerate(self.positions):
                position.time, position.episode_return = int(times[i]), float(sums[i])
                if firsts[i] < len(ticks):
                    last, final = len(ticks) - 1, self.observations[i]
                    fragments.append(self._fragment(i, int(firsts[i]), last, final))
            if not fragments:
                raise ValueError(f"no step could be kept: {dropped[-1]}")
            return Collected(
                self._pack(ticks, fragments, sampler, version),
                taken,
                tuple(returns),
                tuple(dropped),
                tuple(replace(position) for position in self.positions),
            )

    def _tick(self, sampler: Sampler) -> tuple[Tick, np.ndarray, np.ndarray, dict[str, Any]]:
        observations = self.observations
        actions = sampler.act(observations)
        actions = actions.astype(self.environments.single_action_space.dtype, copy=False)
        following, rewards, terminated, truncated, infos = self.environments.step(actions)
        # Copied: an environment may write the next ones over these.
        self.observations = np.array(following)
        if self.mode == AutoresetMode.NEXT_STEP:
            self.resetting = terminated | truncated
        tick = Tick(observations, actions, np.array(rewards, dtype=np.float64))
        return tick, terminated, truncated, infos

    def _refuse_broken(self, times: np.ndarray) -> None:
        observations = self.observations
        if observations.dtype.kind != "f" or np.isfinite(observations).all():
            return
        i = int(np.argmax(~np.isfinite(observations).reshape(len(observations), -1).all(axis=1)))
        raise ValueError(
            f"observations: {observations[i]} at step {times[i]} of episode "
            f"{self.positions[i].episode}; only finite numbers can be learnt from, so mend the "
            "environment"
        )

    def _raised(self, infos: dict[str, Any], i: int) -> str | None:
        told = infos.get("final_info", infos) if self.mode == AutoresetMode.SAME_STEP else infos
        return told[RAISED][i] if RAISED in told and told[f"_{RAISED}"][i] else None

    def _final(self, infos: dict[str, Any], i: int) -> Any:
        if self.mode == AutoresetMode.SAME_STEP:
            return np.array(infos["final_obs"][i])
        return self.observations[i]

    def _fragment(self, i: int, first: int, last: int, *end: Any) -> Fragment:
        position = self.positions[i]
        start = position.time - (last - first + 1)
        return Fragment(i, first, last, position.episode, start, *end)

    def _pack(
        self, ticks: list[Tick], fragments: list[Fragment], sampler: Sampler, version: int
    ) -> Trajectories:
        def table(column: str) -> np.ndarray:
            rows = np.concatenate([getattr(tick, column) for tick in ticks])
            return rows.reshape(len(ticks), -1, *rows.shape[1:])

        observations, actions = table("observations"), table("actions")

        def steps(rows: np.ndarray) -> np.ndarray:
            return np.concatenate([rows[f.first : f.last + 1, f.environment] for f in fragments])

        return Trajectories(
            observations=steps(observations),
            actions=steps(actions),
            rewards=steps(table("rewards")),
            log_prob_behaviour=steps(sampler.log_probs(observations, actions)),
            lengths=np.array([f.last - f.first + 1 for f in fragments]),
            final_observations=np.array(
                [f.final_observation for f in fragments], dtype=observations.dtype
            ),
            terminated=np.array([f.terminated for f in fragments]),
            truncated=np.array([f.truncated for f in fragments]),
            policy_version=np.full(len(fragments), version),
            episode=np.array([f.episode for f in fragments]),
            seed=np.array([episode_seed(self.seed, f.episode) for f in fragments]),
            time_start=np.array([f.time_start for f in fragments]),
        )
