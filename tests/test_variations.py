"""The variations of training that the ablation measures: each changes what is learnt."""

import math

import pytest
import torch
from variations import VARIATIONS, ThreeCritics

from reweigh.core.segments import Segments
from reweigh.train import improve as part
from reweigh.train.config import TrainConfig
from reweigh.train.loop import train
from reweigh.train.start import collect_here, new_run

CONTINUOUS = ("state-dependent noise", "healthy policies only")
"""Choices have no noise, and old steps of theirs stay healthy in so short a run."""


ABOUT_OLD_STEPS = [
    "ratios ignored",
    "clipped around 1",
    "clipped in proportion",
    "traces uncorrected",
    "estimated once",
    "mixture of behaviours",
    "prefix weights",
    "healthy policies only",
]
SEGMENTS = Segments.packed([3])


def learnt(folder, variation, environment, **options):
    short = {"steps": 160, "iteration_steps": 32, "epochs": 3, "minibatches": 2}
    large = {"learning_rate": 0.05, "max_kl": 9.0, "check_every": 1000}
    config = TrainConfig(environment=environment, **{**short, **large, **options})
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


@pytest.mark.parametrize("variation", ABOUT_OLD_STEPS)
def test_one_pass_over_fresh_steps_is_none_of_its_business(variation, tmp_path):
    once = {"reuse": 1, "epochs": 1, "learning_rate": 1e-3}
    before = learnt(tmp_path / "before", "as it is", "CartPole-v1", **once)
    varied = learnt(tmp_path, variation, "CartPole-v1", **once)
    for name, tensor in before.items():
        torch.testing.assert_close(varied[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_power_mean_is_bounded_by_ten():
    far = torch.tensor([0.0, 1.0, 50.0])
    with VARIATIONS["power mean of ratios"]():
        bounded = part.log_ratios(far, torch.zeros(3), SEGMENTS)
    torch.testing.assert_close(
        bounded.exp(), torch.tensor([1.0, math.e / (0.9 + 0.1 * math.e), 10.0]).double()
    )


def test_a_clip_in_proportion_is_where_the_ratio_has_moved_by_a_share():
    centre = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    ratios = (centre + math.log(1.3)).requires_grad_()
    with VARIATIONS["clipped in proportion"]():
        objective = part.clipped_ratio(ratios, torch.ones(3), SEGMENTS, clip=0.2, log_centre=centre)
    torch.testing.assert_close(objective, 1.2 * centre.exp())
    assert torch.autograd.grad(objective.sum(), ratios)[0].tolist() == [0, 0, 0]


def test_a_clip_around_one_forgets_where_the_ratio_began():
    ratios = torch.tensor([-2.0, 0.1, 2.0], dtype=torch.float64)
    with VARIATIONS["clipped around 1"]():
        objective = part.clipped_ratio(ratios, torch.ones(3), SEGMENTS, clip=0.2, log_centre=ratios)
    torch.testing.assert_close(objective, ratios.exp().clamp(max=1.2))


def test_three_critics_are_fitted_each_and_agree_on_their_mean():
    torch.manual_seed(0)
    critics = ThreeCritics((4,), 0, [8])
    seen, targets = torch.randn(5, 4), torch.randn(5)
    each = torch.stack([member(seen) for member in critics.members])
    torch.testing.assert_close(critics(seen), each.mean(0))
    losses = 0.5 * (each - targets).square().mean(1)
    torch.testing.assert_close(critics.loss(seen, targets), losses.sum())
