import pytest
import torch
from core_batches import ragged

from reweigh.core import diagnostics, weights
from reweigh.core.segments import Segments


def test_effective_sample_size_between_its_extremes():
    assert diagnostics.effective_sample_size(torch.zeros(7)).item() == pytest.approx(7.0)
    one = torch.tensor([0.0, -torch.inf, -torch.inf])
    assert diagnostics.effective_sample_size(one).item() == 1.0
    assert diagnostics.effective_sample_size(torch.tensor([3.0, 1.0]).log()).item() == (
        pytest.approx(16 / 10)
    )


def test_effective_sample_size_ignores_a_shift():
    b = ragged([9], 0)
    want = diagnostics.effective_sample_size(b.advantages)
    for shift in (700.0, -5000.0):
        found = diagnostics.effective_sample_size(b.advantages + shift)
        torch.testing.assert_close(found, want)


def test_effective_sample_size_of_nothing():
    assert diagnostics.effective_sample_size(torch.zeros(0)).item() == 0.0
    assert diagnostics.effective_sample_size(torch.full((2,), -torch.inf)).item() == 0.0


def test_ess_by_time_keeps_ended_episodes():
    segments = Segments.packed([1, 2])
    log_weights = torch.tensor([3.0, 1.0, 1.0]).log()
    found = diagnostics.ess_by_time(log_weights, segments)
    assert found.tolist() == pytest.approx([1.6, 1.6])


def test_ess_by_time_of_merged_sums():
    whole, first, second = ragged([3, 1, 0, 2], 3), slice(0, 4), slice(4, 6)
    parts = ((first, [3, 1]), (second, [0, 2]))
    sums, of_squares = (
        weights.LogSums.merge(
            *(weights.log_sums(k * whole.prefix[at], Segments.packed(n)) for at, n in parts)
        )
        for k in (1, 2)
    )
    found = diagnostics.ess_of_sums(sums, of_squares)[0]
    torch.testing.assert_close(found, diagnostics.ess_by_time(whole.prefix, whole.segments))


def test_kl_is_from_behaviour_to_target():
    """Exact where the batch holds every action as often as the behaviour takes it."""
    behaviour = torch.tensor([0.75, 0.25], dtype=torch.float64)
    target = torch.tensor([0.5, 0.5], dtype=torch.float64)
    actions = torch.tensor([0, 0, 0, 1])
    log_ratios = (target.log() - behaviour.log())[actions]
    want = (behaviour * (behaviour.log() - target.log())).sum()
    found = diagnostics.approximate_kl(log_ratios, Segments.packed([4]))
    torch.testing.assert_close(found, want)


def test_the_kl_estimate_of_one_step_is_never_negative():
    ratios = torch.tensor([2.0, 0.5], dtype=torch.float64)
    for ratio in ratios:
        found = diagnostics.approximate_kl(ratio.log().unsqueeze(0), Segments.packed([1]))
        torch.testing.assert_close(found, ratio - 1 - ratio.log())
        assert found.item() > 0


def test_kl_is_a_mean_over_existing_steps():
    log_ratios = torch.tensor([0.5, torch.nan, -0.2, 9.0], dtype=torch.float64)
    padded = Segments.padded([3], 4, mask=torch.tensor([True, False, True, False]))
    found = diagnostics.approximate_kl(log_ratios, padded)
    want = diagnostics.approximate_kl(log_ratios[[0, 2]], Segments.packed([2]))
    torch.testing.assert_close(found, want)


def test_kl_of_equal_policies_and_of_nothing():
    assert diagnostics.approximate_kl(torch.zeros(3), Segments.packed([3])).item() == 0.0
    assert diagnostics.approximate_kl(torch.zeros(0), Segments.packed([0])).item() == 0.0


def test_nothing_here_has_a_gradient():
    b = ragged([4, 2], 0)
    log_weights = weights.prefix(b.ratios.requires_grad_(), b.segments)
    assert not diagnostics.effective_sample_size(log_weights).requires_grad
    assert not diagnostics.ess_by_time(log_weights, b.segments).requires_grad
    assert not diagnostics.approximate_kl(log_weights, b.segments).requires_grad
    for health in (diagnostics.step_health, diagnostics.episode_health):
        assert not any(x.requires_grad for x in health(log_weights, b.segments))
