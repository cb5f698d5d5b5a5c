import pytest
import torch

from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments


def test_float64_whatever_comes_in():
    target, behaviour = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0])
    found = log_ratios(target, behaviour, Segments.packed([2]))
    assert found.dtype == torch.float64
    assert found.tolist() == [0.5, 0.0]


def test_only_the_target_is_differentiated():
    target = torch.tensor([-1.0, -2.0], requires_grad=True)
    behaviour = torch.tensor([-1.5, -2.0], requires_grad=True)
    log_ratios(target, behaviour, Segments.packed([2])).sum().backward()
    assert target.grad is not None and target.grad.tolist() == [1.0, 1.0]
    assert behaviour.grad is None


@pytest.mark.parametrize(
    ("name", "target", "behaviour"),
    [
        ("log_prob_target is nan at step 1 of episode 1", torch.nan, 0.0),
        ("log_prob_target is inf at step 1 of episode 1", torch.inf, 0.0),
        ("log_prob_behaviour is nan at step 1 of episode 1", 0.0, torch.nan),
        ("log_prob_behaviour is -inf at step 1 of episode 1", 0.0, -torch.inf),
        ("log_prob_behaviour is inf at step 1 of episode 1", 0.0, torch.inf),
    ],
)
def test_refuses_what_no_sampled_action_has(name, target, behaviour):
    segments = Segments.packed([1, 3], time_start=torch.tensor([0, 6]))
    at = torch.tensor([0.0, 0.0, 1.0, 0.0]).bool()
    with pytest.raises(ValueError, match=name):
        log_ratios(
            torch.where(at, target, torch.zeros(4)),
            torch.where(at, behaviour, torch.zeros(4)),
            segments,
        )
    hidden = Segments.packed([1, 3], mask=~at)
    found = log_ratios(
        torch.where(at, target, torch.zeros(4)), torch.where(at, behaviour, torch.zeros(4)), hidden
    )
    assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_refuses_half_precision(dtype):
    half, single, segments = torch.zeros(1, dtype=dtype), torch.zeros(1), Segments.packed([1])
    with pytest.raises(ValueError, match=r"log_prob_target is torch\..*float32"):
        log_ratios(half, single, segments)
    with pytest.raises(ValueError, match=r"log_prob_behaviour is torch\..*float32"):
        log_ratios(single, half, segments)


def test_refuses_another_shape():
    with pytest.raises(ValueError, match=r"log_prob_behaviour must have shape \[2\].*got \[3\]"):
        log_ratios(torch.zeros(2), torch.zeros(3), Segments.packed([2]))
