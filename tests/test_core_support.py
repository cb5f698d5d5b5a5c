import pytest
import torch
from core_batches import close

from reweigh.core import support
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments

LOGITS = torch.tensor(
    [[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 3.0, -2.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64
)
OTHER = torch.tensor(
    [[0.0, 2.0, 1.0, 0.5], [1.0, -1.0, 0.0, 0.0], [0.3, 0.1, -2.0, 1.0]], dtype=torch.float64
)


def test_top_k_keeps_the_likeliest():
    assert support.top_k(LOGITS, k=2).tolist()[0] == [True, True, False, False]
    assert support.top_k(LOGITS, k=9).all()
    # Ties with the last one stay: which of them a sampler dropped cannot be known.
    assert support.top_k(LOGITS, k=2).tolist()[2] == [True] * 4


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 1.0])
def test_top_p_is_the_smallest_set_that_reaches_the_mass(p, temperature):
    kept = support.top_p(LOGITS, p=p, temperature=temperature)
    for probability, own in zip((LOGITS / temperature).softmax(1), kept, strict=True):
        mass, count = 0.0, 0
        for value in probability.sort(descending=True).values.tolist():
            if mass >= p - 1e-12:
                break
            mass, count = mass + value, count + 1
        assert int(own.sum()) == count
        assert float(probability[own].min()) >= float(probability[~own].max() if count < 4 else 0)


def test_top_p_after_top_k_is_of_what_is_left():
    cut = LOGITS.masked_fill(~support.top_k(LOGITS, k=2), -torch.inf)
    assert support.top_p(cut[:1], p=0.7).tolist() == [[True, False, False, False]]
    assert support.top_p(cut[:1], p=1.0).tolist() == [[True, True, False, False]]
    # Even where rounding leaves the mass of what is left below 1.
    many = torch.randn(50, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = support.top_k(many, k=11)
    assert support.top_p(many.masked_fill(~left, -torch.inf), p=1.0).tolist() == left.tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_under_the_same_support_the_ratio_is_exact(temperature):
    """Every action of one step, enumerated: E_φS[ρ f] = E_θS[f]."""
    kept = support.top_p(LOGITS, p=0.8, temperature=temperature)
    f = torch.tensor([3.0, -1.0, 2.0, 5.0], dtype=torch.float64)
    for row in range(3):
        actions = kept[row].nonzero().squeeze(1)
        behaviour, target = (
            support.log_prob(
                x[row].expand(len(actions), -1),
                actions,
                support=kept[row].expand(len(actions), -1),
                temperature=temperature,
            )
            for x in (LOGITS, OTHER)
        )
        ratios = log_ratios(target, behaviour, Segments.packed([len(actions)]))
        found = (behaviour.exp() * ratios.exp() * f[actions]).sum()
        restricted = (OTHER[row] / temperature).softmax(0) * kept[row]
        close(found, (restricted / restricted.sum() * f).sum())


def test_a_target_that_is_not_cut_down_is_off_by_its_mass():
    kept = support.top_k(LOGITS[:2], k=2)
    actions = torch.tensor([1, 2])
    inside = support.log_prob(OTHER[:2], actions, support=kept)
    mass = support.log_mass(OTHER[:2], kept)
    close(inside + mass, support.log_prob(OTHER[:2], actions))
    close(mass.exp(), (OTHER[:2].softmax(1) * kept).sum(1))


def test_outside_the_support_nothing_has_probability():
    kept = support.top_k(LOGITS[:2], k=2)
    found = support.log_probs(LOGITS[:2], support=kept)
    close(found.exp().sum(1), [1.0, 1.0])
    assert bool((found[~kept] == -torch.inf).all())


def test_half_precision_is_taken_up_and_the_gradient_comes_back():
    logits = LOGITS.bfloat16().requires_grad_()
    found = support.log_prob(logits, torch.tensor([0, 2, 3]))
    assert found.dtype == torch.float32
    close(found, LOGITS.log_softmax(1)[range(3), [0, 2, 3]], 1e-6)
    found.sum().backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_a_padding_label_is_no_action():
    found = support.log_prob(LOGITS, torch.tensor([0, -100, 2]))
    close(found, [LOGITS.log_softmax(1)[0, 0], 0.0, LOGITS.log_softmax(1)[2, 2]])


def test_log_probabilities_are_differentiable():
    kept = support.top_k(LOGITS, k=2)
    actions = torch.tensor([1, 2, 0])
    assert torch.autograd.gradcheck(
        lambda x: support.log_prob(x, actions, support=kept, temperature=0.6),
        (OTHER.clone().requires_grad_(),),
    )


def test_refusals():
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        support.top_k(LOGITS, k=0)
    with pytest.raises(ValueError, match="p must be positive"):
        support.top_p(LOGITS, p=0.0)
    with pytest.raises(ValueError, match="p must lie in"):
        support.top_p(LOGITS, p=1.1)
    with pytest.raises(ValueError, match="temperature must be positive"):
        support.log_probs(LOGITS, temperature=0.0)
    with pytest.raises(ValueError, match=r"shape of the logits \[3, 4\], got \[2, 4\]"):
        support.log_probs(LOGITS, support=torch.ones(2, 4, dtype=torch.bool))
