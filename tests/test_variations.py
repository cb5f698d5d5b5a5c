"""The variations of training that the ablation measures: each changes what is learnt."""

import pytest
import torch
from variations import VARIATIONS

from reweigh.train.config import TrainConfig
from reweigh.train.loop import train
from reweigh.train.start import collect_here, new_run

CONTINUOUS = ("state-dependent noise", "healthy policies only")
"""Choices have no noise, and old steps of theirs stay healthy in so short a run."""


def learnt(folder, variation, environment):
    config = TrainConfig(
        environment=environment,
        steps=160,
        iteration_steps=32,
        epochs=3,
        minibatches=2,
        learning_rate=0.05,
        max_kl=9.0,
        check_every=1000,
    )
    with VARIATIONS[variation]():
        run = new_run(folder / variation, config)
        list(train(run, collect_here(run)))
    return run.policies.load(5)


@pytest.mark.parametrize("variation", [name for name in VARIATIONS if name != "as it is"])
def test_a_variation_changes_what_is_learnt_and_nothing_after_it(variation, tmp_path):
    environment = "Pendulum-v1" if variation in CONTINUOUS else "CartPole-v1"
    before = learnt(tmp_path / "before", "as it is", environment)
    varied = learnt(tmp_path, variation, environment)
    after = learnt(tmp_path / "after", "as it is", environment)
    assert set(before) == set(varied)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert any(not torch.equal(tensor, varied[name]) for name, tensor in before.items())
