"""The variations of training that the ablation measures: each changes what is learnt."""

import math

import pytest
import torch
from variations import (
    VARIATIONS,
    ThreeCritics,
    bounded_by_ten,
    clipped_around_one,
    clipped_in_proportion,
    clipped_power_mean,
)

from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
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
    with VARIATIONS[variation].networks():
        run = new_run(folder / variation, config)
        list(train(run, collect_here(run), improve=VARIATIONS[variation].improvement()))
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
def test_a_variation_about_old_steps_changes_no_pass_over_fresh_ones(variation, tmp_path):
    once = {"reuse": 1, "epochs": 1, "learning_rate": 1e-3}
    before = learnt(tmp_path / "before", "as it is", "CartPole-v1", **once)
    varied = learnt(tmp_path, variation, "CartPole-v1", **once)
    for name, tensor in before.items():
        torch.testing.assert_close(varied[name], tensor, rtol=1e-3, atol=1e-4)


def of_steps(log_ratios):
    """Steps of their own with a behaviour of probability 1, so that log-ratios are log-probs."""
    return Sample(log_ratios, torch.zeros_like(log_ratios), Segments.packed([1] * len(log_ratios)))


def test_a_power_mean_is_bounded_by_ten():
    bounded = bounded_by_ten(torch.tensor([0.0, 1.0, 50.0]), SEGMENTS)
    torch.testing.assert_close(
        bounded.exp(), torch.tensor([1.0, math.e / (0.9 + 0.1 * math.e), 10.0]).double()
    )
    far = torch.full((3,), 50.0, dtype=torch.float64)
    loss = clipped_power_mean(of_steps(far), torch.ones(3), far, clip=0.2)
    assert loss.item() == pytest.approx(-10.0)
    unbounded = torch.tensor([0.1, -0.1, 0.15], dtype=torch.float64)
    loss = clipped_power_mean(of_steps(unbounded), torch.ones(3), 0 * unbounded, clip=0.9)
    assert loss.item() == pytest.approx(-float(bounded_by_ten(unbounded, SEGMENTS).exp().mean()))


def test_a_clip_in_proportion_is_where_the_ratio_has_changed_by_a_share():
    began = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    log_prob = (began + math.log(1.3)).requires_grad_()
    loss = clipped_in_proportion(of_steps(log_prob), torch.ones(3), began, clip=0.2)
    torch.testing.assert_close(loss, -1.2 * began.exp().mean())
    assert torch.autograd.grad(loss, log_prob)[0].tolist() == [0, 0, 0]


def test_a_clip_around_one_does_not_depend_on_where_the_ratio_began():
    log_prob = torch.tensor([-2.0, 0.1, 2.0], dtype=torch.float64)
    loss = clipped_around_one(of_steps(log_prob), torch.ones(3), log_prob, clip=0.2)
    torch.testing.assert_close(loss, -log_prob.exp().clamp(max=1.2).mean())


def test_three_critics_are_fitted_each_and_agree_on_their_mean():
    torch.manual_seed(0)
    critics = ThreeCritics((4,), 0, [8])
    seen, targets = torch.randn(5, 4), torch.randn(5)
    each = torch.stack([member(seen) for member in critics.members])
    torch.testing.assert_close(critics(seen), each.mean(0))
    losses = 0.5 * (each - targets).square().mean(1)
    torch.testing.assert_close(critics.loss(seen, targets), losses.sum())
