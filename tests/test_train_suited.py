"""Options that depend on the environment: what is given counts, what is not is what suits it."""

import inspect
import re
from dataclasses import asdict

import pytest

from reweigh.train.config import TrainConfig
from reweigh.train.start import new_run
from reweigh.train.suited import BOX2D, CONTINUOUS, DISCRETE, MUJOCO, suited_to

CARTPOLE = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
PENDULUM = "gymnasium.envs.classic_control.pendulum:PendulumEnv"


@pytest.mark.parametrize(
    ("entry_point", "discrete", "expected"),
    [
        (CARTPOLE, True, DISCRETE),
        (PENDULUM, False, CONTINUOUS),
        ("gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv", False, MUJOCO),
        ("gymnasium.envs.box2d.lunar_lander:LunarLander", True, BOX2D),
        ("gymnasium.envs.box2d.lunar_lander:LunarLander", False, BOX2D),
        ("mine:Environment", True, DISCRETE),
        ("<class 'mine.Environment'>", False, CONTINUOUS),
    ],
)
def test_a_set_is_told_by_where_an_environment_is_and_by_its_actions(
    entry_point, discrete, expected
):
    assert suited_to(entry_point, discrete_actions=discrete) is expected


@pytest.mark.parametrize(
    ("environment", "expected"), [("CartPole-v1", DISCRETE), ("Pendulum-v1", CONTINUOUS)]
)
def test_a_run_has_the_set_of_its_environment(environment, expected, tmp_path):
    run = new_run(tmp_path / "run", TrainConfig(environment=environment))
    assert {name: getattr(run.config, name) for name in asdict(expected)} == asdict(expected)


def test_what_is_given_counts(tmp_path):
    config = TrainConfig(environment="CartPole-v1", epochs=7, standardise=True)
    run = new_run(tmp_path / "run", config)
    for name, value in asdict(DISCRETE).items():
        given = {"epochs": 7, "standardise": True}.get(name, value)
        assert getattr(run.config, name) == given, name
    again = run.config.resolved(suited=MUJOCO)
    assert again == run.config
    assert run.config.threshold == 475.0


def test_every_option_of_a_set_is_one_of_training_that_has_no_other_default():
    for name in asdict(DISCRETE):
        assert getattr(TrainConfig(environment="x"), name) is None


@pytest.mark.parametrize("name", asdict(DISCRETE))
def test_the_help_says_the_value_of_every_set(name):
    source = inspect.getsource(TrainConfig)
    (told,) = re.findall(rf'^    {name}: [^\n]*\n    """(.*?)"""', source, re.M | re.S)
    for each in (DISCRETE, CONTINUOUS, MUJOCO, BOX2D):
        value = getattr(each, name)
        text = str(value) if isinstance(value, bool) else f"{value:g}"
        assert text in re.findall(r"[\d.]*\d|True|False", told.split("Default:")[1]), each


def test_choices_have_no_unit_to_be_measured_in(tmp_path):
    config = TrainConfig(environment="FrozenLake-v1", standardise=True)
    with pytest.raises(ValueError, match=r"FrozenLake-v1 has observations Discrete\(16\), which"):
        new_run(tmp_path / "run", config)
    new_run(tmp_path / "run", TrainConfig(environment="FrozenLake-v1", standardise=False))
