"""Stable-Baselines3 PPO and reweigh, measured alike, in one table.

The protocol and the thresholds are those of `sample_efficiency.py`. PPO has the settings that
rl-baselines3-zoo gives for the environment (`hyperparams/ppo.yml`), and is checked after every
update, that is each time its policy changes: every 256 steps for CartPole-v1, 4,096 for Acrobot-v1.
Its greedy policy plays the episodes that reweigh's plays, from the same first states.

One process and one thread at a time. CPU seconds are those of training to the threshold, checks
aside.

    make compare                                                   # five seeds of each
    .venv-compare/bin/python benchmarks/peers.py --environments CartPole-v1 --seeds 0
"""

import argparse
import csv
import statistics
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
from sample_efficiency import THRESHOLDS, Result
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

ROOT = Path(__file__).parents[1]
EPISODES = 100


@dataclass(frozen=True)
class Settings:
    """What rl-baselines3-zoo gives for one environment; whatever is not here is PPO's default."""

    environments: int
    total_steps: int  # after which linear schedules are at zero
    normalise: bool  # observations and rewards, by their running statistics
    ppo: dict[str, Any]


SETTINGS = {
    "CartPole-v1": Settings(
        environments=8,
        total_steps=100_000,
        normalise=False,
        ppo={
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
    "Acrobot-v1": Settings(
        environments=16,
        total_steps=1_000_000,
        normalise=True,
        ppo={"n_steps": 256, "n_epochs": 4, "gae_lambda": 0.94, "gamma": 0.99, "ent_coef": 0.0},
    ),
}


class Check(BaseCallback):
    """Plays the greedy policy after each update; ends training at the threshold or at `steps`."""

    def __init__(self, environment: str, *, seed: int, steps: int):
        super().__init__()
        self.environment, self.seed, self.give_up = environment, seed, steps
        self.steps_to_threshold: int | None = None
        self.last_return = float("nan")
        self.steps, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.finished = False

    def _start_clocks(self) -> None:
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def _stop_clocks(self) -> None:
        self.seconds += time.perf_counter() - self.began
        self.cpu_seconds += time.process_time() - self.began_cpu

    def _check(self) -> None:
        self._stop_clocks()
        self.steps = self.model.num_timesteps
        self.last_return = greedy_return(self.model, self.environment, seed=self.seed)
        if self.last_return >= THRESHOLDS[self.environment]:
            self.steps_to_threshold = self.steps
        self.finished = self.steps_to_threshold is not None or self.steps >= self.give_up
        self._start_clocks()

    def _on_training_start(self) -> None:
        self._start_clocks()

    def _on_rollout_start(self) -> None:  # the first comes before any update
        if self.model.num_timesteps > 0:
            self._check()

    def _on_step(self) -> bool:
        return not self.finished

    def _on_training_end(self) -> None:  # no rollout follows the schedules' last update
        if not self.finished:
            self._check()


def greedy_return(model: Any, environment: str, *, seed: int) -> float:
    """Return the mean return of the policy's mode; its statistics stay as training left them."""
    normalise = getattr(model.get_vec_normalize_env(), "normalize_obs", np.asarray)
    returns = np.zeros(EPISODES)
    playing = []  # (environment, episode, observation)
    for episode in range(EPISODES):
        env = gym.make(environment, disable_env_checker=True)
        # The seeds of reweigh.acting.evaluate: both learners are checked on the same first states.
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


def measure(environment: str, seed: int, steps: int) -> Result:
    """Train PPO once in this process."""
    settings = SETTINGS[environment]
    environments = make_vec_env(environment, n_envs=settings.environments, seed=seed)
    if settings.normalise:
        environments = VecNormalize(environments, gamma=settings.ppo["gamma"])
    check = Check(environment, seed=seed, steps=steps)
    model = PPO("MlpPolicy", environments, seed=seed, device="cpu", **settings.ppo)
    model.learn(settings.total_steps, callback=check)
    environments.close()
    return Result(
        environment,
        seed,
        "{}",
        check.steps_to_threshold,
        check.steps,
        round(check.seconds, 2),
        round(check.cpu_seconds, 2),
        round(check.last_return, 1),
    )


def measure_reweigh(
    python: Path, environments: list[str], seeds: list[int], steps: int
) -> list[Result]:
    """Run `sample_efficiency.py` in the environment that reweigh is installed in."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.csv"
        command = [python, ROOT / "benchmarks/sample_efficiency.py", "--environments"]
        command += [*environments, "--seeds", *map(str, seeds), "--steps", str(steps)]
        command += ["--processes", "1", "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with out.open(newline="") as file:
            return [
                Result(
                    row["environment"],
                    int(row["seed"]),
                    row["options"],
                    int(row["steps_to_threshold"]) if row["steps_to_threshold"] else None,
                    int(row["steps"]),
                    float(row["seconds"]),
                    float(row["cpu_seconds"]),
                    float(row["last_return"]),
                )
                for row in csv.DictReader(file)
            ]


def table_row(learner: str, results: list[Result]) -> str:
    figures = [r.steps_to_threshold for r in results]
    median = statistics.median(float("inf") if f is None else f for f in figures)
    return (
        f"{results[0].environment:14} {learner:24} "
        f"{' '.join('-' if f is None else str(f) for f in figures):40} "
        f"{median:8g} {statistics.median(r.cpu_seconds for r in results):6.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure Stable-Baselines3 PPO and reweigh alike, in one table."
    )
    parser.add_argument("--environments", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=60_000, help="give up after this many steps")
    parser.add_argument(
        "--reweigh-python",
        type=Path,
        default=ROOT / ".venv/bin/python",
        help="the Python that reweigh is installed for",
    )
    arguments = parser.parse_args()
    if not arguments.reweigh_python.exists():  # found out now, not after minutes of PPO
        parser.error(f"{arguments.reweigh_python} is not there; `make compare` installs it")

    torch.set_num_threads(1)
    peers = []
    for environment in arguments.environments:
        for seed in arguments.seeds:
            peers.append(measure(environment, seed, arguments.steps))
            print(peers[-1], file=sys.stderr, flush=True)  # minutes pass before the table
    ours = measure_reweigh(
        arguments.reweigh_python, arguments.environments, arguments.seeds, arguments.steps
    )

    learners = {f"Stable-Baselines3 {version('stable-baselines3')}": peers, "reweigh": ours}
    print(
        f"{'environment':14} {'learner':24} {'steps to threshold, each seed':40} "
        f"{'median':>8} {'CPU s':>6}"
    )
    for environment in arguments.environments:
        for learner, results in learners.items():
            print(table_row(learner, [r for r in results if r.environment == environment]))


if __name__ == "__main__":
    main()
