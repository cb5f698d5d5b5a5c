"""Networks for images and for memory: what they compute, and that they learn what needs them."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from reweigh.acting.environments import make
from reweigh.acting.networks import Convolutions, Recurrent, ValueFunction, is_image, network
from reweigh.train.config import TrainConfig
from reweigh.train.loop import train
from reweigh.train.run import Run
from reweigh.train.start import collect_here, new_run

SIZE = 16


class Picture(gym.Env):
    """Renders a bright square on a noisy ground; the action is the quarter that it is in."""

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.time = 0
        return self._render(), {}

    def _render(self):
        self.quarter = int(self.np_random.integers(4))
        picture = self.np_random.integers(0, 100, (SIZE, SIZE, 3), dtype=np.uint8)
        corner = self.np_random.integers(0, SIZE // 2 - 5, 2) + SIZE // 2 * np.array(
            divmod(self.quarter, 2)
        )
        picture[corner[0] : corner[0] + 5, corner[1] : corner[1] + 5] = 255
        return picture

    def step(self, action):
        reward = float(action == self.quarter)
        self.time += 1
        return self._render(), reward, self.time == 10, False, {}


class Recall(gym.Env):
    """Shows a sign once; three steps later the action should be of that sign.

    Whoever sees the newest observation alone gets half of the rewards.
    """

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.sign, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.sign - 1, 0], np.float32), {}

    def step(self, action):
        self.time += 1
        asked = self.time == 4
        reward = float(asked and action == self.sign)
        return np.array([0, self.time == 3], np.float32), reward, asked, False, {}


gym.register("Picture-v0", Picture)
gym.register("Recall-v0", Recall)


def trained(path, environment, **options):
    run = new_run(path, TrainConfig(environment=environment, **options))
    (*_, last) = train(run, collect_here(run))
    return last.evaluation_return


LITTLE = {
    "seed": 0,
    "discount": 0.9,
    "entropy": 0.01,
    "learning_rate": 3e-3,
    "reuse": 4,
    "iteration_steps": 256,
    "epochs": 8,
    "evaluation_episodes": 50,
}


def test_a_policy_learns_from_pixels(tmp_path):
    options = {**LITTLE, "discount": 0.0, "steps": 2048, "check_every": 2048, "hidden": (32,)}
    found = trained(tmp_path / "run", "Picture-v0", **options)
    assert found > 9.0  # of 10; blindly 2.5


def test_a_policy_with_memory_recalls_what_it_saw(tmp_path):
    options = {**LITTLE, "steps": 2048, "check_every": 2048, "hidden": (32,)}
    assert trained(tmp_path / "a", "Recall-v0", **options, memory=4) > 0.95
    assert trained(tmp_path / "b", "Recall-v0", **options) < 0.75


def test_a_run_with_memory_goes_on_bit_for_bit(tmp_path):
    options = {**LITTLE, "environment": "Recall-v0", "hidden": (8,), "memory": 3, "epochs": 2}
    whole = new_run(tmp_path / "whole", TrainConfig(**options, steps=768))
    list(train(whole, collect_here(whole)))
    half = new_run(tmp_path / "half", TrainConfig(**options, steps=300))
    list(train(half, collect_here(half)))
    half = Run.open(tmp_path / "half")
    half.extend(steps=768, minutes=None, threshold=None)
    list(train(half, collect_here(half)))
    expected = whole.load_policy().state_dict()
    for name, tensor in half.load_policy().state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_memory_is_of_the_last_observations_and_nothing_before_the_first():
    env = make("Recall-v0", memory=3)
    first, _ = env.reset(seed=0)
    assert first.shape == (3, 2)
    assert not first[:2].any()
    second, *_ = env.step(0)
    assert np.array_equal(second[:2], first[1:])


def test_the_recurrent_unit_reads_in_order_from_a_state_of_0():
    torch.manual_seed(0)
    unit = Recurrent(nn.Identity(), 2, 5)
    seen = torch.randn(4, 3, 2)
    state = torch.zeros(4, 5)
    cell = nn.GRUCell(2, 5)
    for name, tensor in unit.unit.state_dict().items():
        getattr(cell, name.removesuffix("_l0")).data.copy_(tensor)
    for time in range(3):
        state = cell(seen[:, time], state)
    torch.testing.assert_close(unit(seen), state)


@pytest.mark.parametrize("shape", [(16, 16, 1), (20, 33, 3), (84, 84, 4), (210, 160, 3)])
def test_bytes_are_read_in_units_of_255(shape):
    torch.manual_seed(0)
    layers = Convolutions(shape)
    picture = torch.randint(256, (2, *shape), dtype=torch.uint8)
    torch.testing.assert_close(layers(picture), layers(picture / 255))
    assert layers(picture).shape == (2, 64)
    assert not torch.equal(layers(picture), layers(picture.flip(1)))


def test_what_is_an_image():
    assert is_image((84, 84, 4))
    assert not is_image((84, 84))
    assert not is_image((3, 84, 84))
    assert not is_image((4, 4, 3))


def test_a_standardised_value_function_is_one_of_what_it_measures():
    torch.manual_seed(0)
    plain, measured = (ValueFunction((2,), 0, (8,), standardise=s) for s in (False, True))
    measured.standardised.load_state_dict(plain.standardised.state_dict())
    seen = torch.randn(6, 2).double() * torch.tensor([1e-3, 5.0]) + torch.tensor([1e6, 0.0])
    mean, deviation = seen.mean(0), seen.std(0)
    measured.measure(mean, deviation)
    torch.testing.assert_close(measured(seen), plain(((seen - mean) / deviation).float()))
    measured.measure(mean, torch.zeros(2))
    torch.testing.assert_close(measured(seen), plain((seen - mean).float()))


def test_memory_and_choices_share_an_encoder():
    torch.manual_seed(0)
    net = network((3,), 5, (8,), 2, output_gain=1.0, memory=3)
    seen = torch.tensor([[0, 4, 1], [2, 2, 2]])
    assert net(seen).shape == (2, 2)
    assert not torch.allclose(*net(seen))
