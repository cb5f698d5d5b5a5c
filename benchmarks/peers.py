"""Stable-Baselines3's PPO and SAC and reweigh, measured alike, in one table.

The protocol is that of `protocol.py`. PPO and SAC have the settings that rl-baselines3-zoo gives
for the environment (`hyperparams/ppo.yml`, `sac.yml`; SAC's defaults for InvertedPendulum-v5, which
has none), and their greedy policies play the episodes that reweigh's plays, from the same first
states. PPO is checked after every update, that is each time its policy changes, but no more often
than the protocol says; SAC as often as the protocol says.

One process and one thread at a time, learners in turn, so that their seconds compare. CPU seconds
are those of training to the threshold, checks aside.

    make compare                                                   # five seeds of each
    .venv-compare/bin/python benchmarks/peers.py --environments CartPole-v1 --seeds 0
    .venv-compare/bin/python benchmarks/peers.py --table peers.parquet    # goes on where it stopped
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from protocol import EPISODES, SEEDS, TASKS, Result, markdown, read, write
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Settings:
    """What rl-baselines3-zoo gives for one environment; whatever is not here is a default."""

    environments: int
    total_steps: int  # after which linear schedules are at zero
    normalise: bool  # observations and rewards, by their running statistics
    arguments: dict[str, Any]


SETTINGS = {
    ("PPO", "CartPole-v1"): Settings(
        environments=8,
        total_steps=100_000,
        normalise=False,
        arguments={
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "ent_coef": 0.0,
            "learning_rate": LinearSchedule(1e-3, 0.0, end_fraction=1.0),
            "clip_range": LinearSchedule(0.2, 0.0, end_fraction=1.0),
        },
    ),
    ("PPO", "Acrobot-v1"): Settings(
        environments=16,
        total_steps=1_000_000,
        normalise=True,
        arguments={"n_steps": 256, "n_epochs": 4, "gae_lambda": 0.94, "gamma": 0.99},
    ),
    ("PPO", "Pendulum-v1"): Settings(
        environments=4,
        total_steps=100_000,
        normalise=False,
        arguments={
            "n_steps": 1024,
            "n_epochs": 10,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "learning_rate": 1e-3,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
    ("PPO", "InvertedPendulum-v5"): Settings(
        environments=1,
        total_steps=1_000_000,
        normalise=True,
        arguments={
            "n_steps": 32,
            "batch_size": 64,
            "n_epochs": 5,
            "gae_lambda": 0.9,
            "gamma": 0.999,
            "learning_rate": 2.22425e-4,
            "ent_coef": 1.37976e-7,
            "clip_range": 0.4,
            "max_grad_norm": 0.3,
            "vf_coef": 0.19816,
        },
    ),
    ("PPO", "LunarLander-v3"): Settings(
        environments=16,
        total_steps=1_000_000,
        normalise=False,
        arguments={
            "n_steps": 1024,
            "batch_size": 64,
            "n_epochs": 4,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "ent_coef": 0.01,
        },
    ),
    ("SAC", "Pendulum-v1"): Settings(1, 20_000, normalise=False, arguments={"learning_rate": 1e-3}),
    ("SAC", "InvertedPendulum-v5"): Settings(1, 20_000, normalise=False, arguments={}),
}
ALGORITHMS = {"PPO": PPO, "SAC": SAC}
PATIENCE = {"PPO": 3, "SAC": 1}
"""Gives up after so many times the steps of the protocol: SAC needs 10 ms or so for each."""
DEFAULT = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "InvertedPendulum-v5"]


class Check(BaseCallback):
    """Plays the greedy policy at each check; ends training at the threshold or at `steps`."""

    def __init__(self, environment: str, *, seed: int, steps: int):
        super().__init__()
        self.environment, self.seed, self.give_up = environment, seed, steps
        self.checked_at: list[int] = []
        self.returns: list[float] = []
        self.seconds, self.cpu_seconds = 0.0, 0.0
        self.finished = False

    def _start_clocks(self) -> None:
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def _stop_clocks(self) -> None:
        self.seconds += time.perf_counter() - self.began
        self.cpu_seconds += time.process_time() - self.began_cpu

    def _check(self) -> None:
        self._stop_clocks()
        self.checked_at.append(self.model.num_timesteps)
        self.returns.append(greedy_return(self.model, self.environment, seed=self.seed))
        there = self.returns[-1] >= TASKS[self.environment].threshold
        self.finished = there or self.checked_at[-1] >= self.give_up
        self._start_clocks()

    def _due(self) -> bool:
        before = self.checked_at[-1] if self.checked_at else 0
        return self.model.num_timesteps - before >= TASKS[self.environment].check_every

    def _on_training_start(self) -> None:
        self._start_clocks()

    def _on_rollout_start(self) -> None:  # the first comes before any update
        if self._due() and not self.finished:
            self._check()

    def _on_step(self) -> bool:
        return not self.finished

    def _on_training_end(self) -> None:  # no rollout follows the schedules' last update
        if not self.finished:
            self._check()


def greedy_return(model: Any, environment: str, *, seed: int) -> float:
    """Mean return of the policy's mode; its statistics stay as training left them."""
    normalise = getattr(model.get_vec_normalize_env(), "normalize_obs", np.asarray)
    returns = np.zeros(EPISODES)
    playing = []  # (environment, episode, observation)
    for episode in range(EPISODES):
        env = gym.make(environment, disable_env_checker=True)
        # The seeds of reweigh.acting.evaluate: all learners are checked on the same first states.
        stream = np.random.SeedSequence([0x5EED, seed, episode])
        observation, _ = env.reset(seed=int(stream.generate_state(1)[0]))
        playing.append((env, episode, observation))
    while playing:
        observations = normalise(np.stack([observation for *_, observation in playing]))
        actions, _ = model.predict(observations, deterministic=True)
        going = []
        for (env, episode, _), action in zip(playing, actions, strict=True):
            observation, reward, terminated, truncated, _ = env.step(action)
            returns[episode] += reward
            if terminated or truncated:
                env.close()
            else:
                going.append((env, episode, observation))
        playing = going
    return float(returns.mean())


def measure(algorithm: str, environment: str, seed: int, steps: int) -> Result:
    """Train once in this process."""
    settings = SETTINGS[algorithm, environment]
    environments = make_vec_env(environment, n_envs=settings.environments, seed=seed)
    if settings.normalise:
        environments = VecNormalize(environments, gamma=settings.arguments["gamma"])
    check = Check(environment, seed=seed, steps=steps)
    model = ALGORITHMS[algorithm](
        "MlpPolicy", environments, seed=seed, device="cpu", **settings.arguments
    )
    model.learn(settings.total_steps, callback=check)
    environments.close()
    there = check.returns[-1] >= TASKS[environment].threshold
    return Result(
        f"{algorithm}, Stable-Baselines3 {version('stable-baselines3')}",
        environment,
        seed,
        "{}",
        check.checked_at[-1] if there else None,
        check.checked_at[-1],
        round(check.seconds, 2),
        round(check.cpu_seconds, 2),
        tuple(check.checked_at),
        tuple(check.returns),
    )


def measure_reweigh(python: Path, environment: str, seed: int) -> Result:
    """Runs `sample_efficiency.py` in the environment that reweigh is installed in."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.parquet"
        command = [python, ROOT / "benchmarks/sample_efficiency.py", "--environments", environment]
        command += ["--seeds", str(seed), "--processes", "1", "--table", table]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (result,) = read(table)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--environments", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--learners", nargs="+", default=["reweigh", "PPO", "SAC"])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--table", type=Path, help="Parquet file that has the rows, and gets them")
    parser.add_argument(
        "--reweigh-python",
        type=Path,
        default=ROOT / ".venv/bin/python",
        help="the Python that reweigh is installed for",
    )
    given = parser.parse_args()
    if not given.reweigh_python.exists():  # refused now, not after minutes of PPO
        parser.error(f"{given.reweigh_python} is not there; `make compare` installs it")

    torch.set_num_threads(1)
    results = [] if given.table is None else read(given.table)
    results = [r for r in results if not r.learner.startswith("reweigh,") and r.options == "{}"]
    done = {(r.learner.partition(",")[0], r.environment, r.seed) for r in results}
    for environment in given.environments:
        for seed in given.seeds:
            for learner in given.learners:
                if (learner, environment, seed) in done:
                    continue
                if learner == "reweigh":
                    result = measure_reweigh(given.reweigh_python, environment, seed)
                elif (learner, environment) in SETTINGS:
                    give_up = PATIENCE[learner] * TASKS[environment].give_up
                    result = measure(learner, environment, seed, give_up)
                else:
                    continue
                results.append(result)
                print(*result.key, result.steps_to_threshold or "-", file=sys.stderr, flush=True)
                if given.table is not None:
                    write(given.table, results)
    order = {name: number for number, name in enumerate(TASKS)}
    print(markdown(sorted(results, key=lambda r: (order[r.environment], r.learner, r.seed))))


if __name__ == "__main__":
    main()
