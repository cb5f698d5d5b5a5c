"""Environments side by side in one process, at the least cost a step."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class ArrayVectorEnv(SyncVectorEnv):
    """What `SyncVectorEnv` is for observations that are arrays or numbers, in less time a step.

    Gymnasium looks up how to take apart and put together the values of any space at every step, and
    copies what it returns. Here rows of a new array are filled. Everything returned is the same.
    """

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step each environment by its row of `actions`; those that end are reset at once."""
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            return super().step(actions)
        space = self.observation_space
        observations = np.empty(space.shape or (), space.dtype)
        rewards: list[Any] = []
        terminations: list[bool] = []
        truncations: list[bool] = []
        infos: dict[str, Any] = {}
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                final = {"final_obs": observation, "final_info": info}
                infos = self._add_info(infos, final, i)
                observation, info = env.reset()
            if info:
                infos = self._add_info(infos, info, i)
            observations[i] = observation
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
        return (
            observations,
            np.array(rewards, dtype=np.float64),
            np.array(terminations, dtype=bool),
            np.array(truncations, dtype=bool),
            infos,
        )
