import math

import pytest
import torch
from core_batches import close, ragged

from reweigh.core import reduce, surrogates, weights
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments


def gradient(objective, leaf):
    return torch.autograd.grad(objective.sum(), leaf, retain_graph=True)[0]


def test_the_gradient_is_weight_times_advantage():
    b = ragged([3, 2], 0)
    log_prob = b.target.requires_grad_()
    objective = surrogates.weighted_log_prob(log_prob, b.ratios.exp(), b.advantages, b.segments)
    expected = (b.ratios.exp() * b.advantages).detach()
    torch.testing.assert_close(gradient(objective, log_prob), expected)
    torch.testing.assert_close(objective.detach(), expected * log_prob.detach())


@pytest.mark.parametrize(("weight", "advantage"), [(0.0, 3.0), (3.0, 0.0)])
def test_weight_zero_contributes_exactly_nothing(weight, advantage):
    log_prob = torch.tensor([-torch.inf, -1.0], requires_grad=True)
    weights = torch.tensor([weight, 1.0])
    advantages = torch.tensor([advantage, 1.0])
    objective = surrogates.weighted_log_prob(log_prob, weights, advantages, Segments.packed([2]))
    assert objective.tolist() == [0.0, -1.0]
    assert gradient(objective, log_prob).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("log_centre", [None, 0.4])
def test_clipping_is_the_minimum_of_the_paper(log_centre):
    b = ragged([40, 30], 1)
    log_ratios = b.ratios.requires_grad_()
    centre = None if log_centre is None else torch.full_like(b.ratios, log_centre)
    c, ratio = torch.tensor(log_centre or 0.0).double().exp(), log_ratios.exp()
    want = torch.minimum(
        ratio * b.advantages, ratio.clamp(float(c - 0.2), float(c + 0.2)) * b.advantages
    )
    found = surrogates.clipped_ratio(
        log_ratios, b.advantages, b.segments, clip=0.2, log_centre=centre
    )
    torch.testing.assert_close(found, want)
    slope = gradient(found, log_ratios)
    torch.testing.assert_close(slope, gradient(want, log_ratios))
    # Both sides of both signs occur.
    moved = slope != 0
    for sign in (b.advantages > 0, b.advantages < 0):
        assert bool(moved[sign].any()) and bool((~moved[sign]).any())


def test_at_the_centre_it_is_the_weighted_policy_gradient():
    b = ragged([5], 2)
    log_prob = b.target.requires_grad_()
    clipped = surrogates.clipped_ratio(
        b.ratios, b.advantages, b.segments, clip=0.1, log_centre=b.ratios
    )
    weighted = surrogates.weighted_log_prob(log_prob, b.ratios.exp(), b.advantages, b.segments)
    torch.testing.assert_close(gradient(clipped, log_prob), gradient(weighted, log_prob))


def test_a_ratio_that_overflows_is_clipped_without_nan():
    log_ratios = torch.tensor([800.0, 800.0, -800.0], requires_grad=True)
    advantages = torch.tensor([1.0, 0.0, -1.0])
    found = surrogates.clipped_ratio(log_ratios, advantages, Segments.packed([3]), clip=0.2)
    assert found.tolist() == pytest.approx([1.2, 0.0, -0.8])
    assert gradient(found, log_ratios).tolist() == [0.0, 0.0, 0.0]


def test_a_wide_clip_has_no_floor():
    log_ratios = torch.tensor([-3.0], requires_grad=True)
    found = surrogates.clipped_ratio(log_ratios, -torch.ones(1), Segments.packed([1]), clip=1.5)
    assert found.tolist() == pytest.approx([-torch.tensor(-3.0).exp().item()])


def test_advantages_weights_and_centre_are_constants():
    b = ragged([3], 0)
    advantages, centre = b.advantages.requires_grad_(), b.values.requires_grad_()
    target = b.target.requires_grad_()
    clipped = surrogates.clipped_ratio(
        b.ratios, advantages, b.segments, clip=0.2, log_centre=centre
    )
    weighted = surrogates.weighted_log_prob(target, centre.exp(), advantages, b.segments)
    ratio = surrogates.weighted_ratio(b.ratios, centre.exp(), advantages, b.segments)
    found = torch.autograd.grad(
        (clipped + weighted + ratio).sum(), (advantages, centre, target), allow_unused=True
    )
    assert found[0] is None and found[1] is None and found[2] is not None


def test_the_ratio_form_has_the_gradient_of_the_score_form():
    b = ragged([3, 2], 0)
    log_prob = b.target.requires_grad_()
    ratio = surrogates.weighted_ratio(b.ratios, b.prefix.exp(), b.advantages, b.segments)
    score = surrogates.weighted_log_prob(log_prob, b.prefix.exp(), b.advantages, b.segments)
    close(gradient(ratio, log_prob), gradient(score, log_prob))
    close(ratio.detach(), (b.prefix.exp() * b.advantages).detach())
    # With the step's own weight it is the surrogate of TRPO, in value and gradient.
    found = surrogates.weighted_ratio(b.ratios, b.ratios.exp(), b.advantages, b.segments)
    trpo = b.ratios.exp() * b.advantages
    close(found.detach(), trpo.detach())
    close(gradient(found, log_prob), gradient(trpo, log_prob))


def test_the_ratio_form_does_not_overflow():
    log_ratios = torch.tensor([1e4, -1e4, -torch.inf, 1e4], requires_grad=True)
    given, unit = torch.tensor([3.0, 2.0, 0.0, 0.0]), torch.ones(4)
    found = surrogates.weighted_ratio(log_ratios, given, unit, Segments.packed([4]))
    assert found.tolist() == [3.0, 2.0, 0.0, 0.0]
    assert gradient(found, log_ratios).tolist() == [3.0, 2.0, 0.0, 0.0]


def policies(steps=4, actions=3, seed=5):
    """Logits to differentiate, log-probs of target and behaviour `[S, A]`, and action values."""
    g = torch.Generator().manual_seed(seed)
    logits, behaviour, q = torch.randn(3, steps, actions, generator=g, dtype=torch.float64)
    logits.requires_grad_()
    return logits, logits.log_softmax(1), behaviour.log_softmax(1), q


def test_all_actions_are_the_expectation_of_the_sampled_one():
    logits, log_probs, behaviour, q = policies()
    segments = Segments.packed([3, 1])
    given = torch.tensor([1.0, 0.5, 2.0, 0.0]).double()
    found = surrogates.expected_value(log_probs, given, q, segments)
    close(found.detach(), given * (log_probs.exp() * q).sum(1).detach())
    expected = torch.zeros(4, dtype=torch.float64)
    for action in range(3):
        ratios = log_ratios(log_probs[:, action], behaviour[:, action], segments)
        sampled = surrogates.weighted_ratio(ratios, given * ratios.exp(), q[:, action], segments)
        expected = expected + behaviour[:, action].exp() * sampled
    close(gradient(found, logits), gradient(expected, logits))
    constant = surrogates.expected_value(log_probs, given, torch.full_like(q, 7.0), segments)
    close(gradient(constant, logits), torch.zeros(4, 3))
    q.requires_grad_(), given.requires_grad_()
    found = surrogates.expected_value(log_probs, given, q, segments)
    assert torch.autograd.grad(found.sum(), (q, given), allow_unused=True) == (None, None)
    assert torch.autograd.gradcheck(
        lambda x: surrogates.expected_value(x.log_softmax(1), given, q, segments), logits
    )


@pytest.mark.parametrize("maximum", [0.3, 1.0, 5.0])
def test_truncation_with_acers_correction_is_unbiased(maximum):
    logits, log_probs, behaviour, q = policies()
    segments, unit = Segments.packed([4]), torch.ones(4)
    ratios = log_probs - behaviour
    expected = torch.zeros(4, dtype=torch.float64)
    for action in range(3):
        bounded = weights.truncate(ratios[:, action], segments, maximum=maximum).log_weights
        term = surrogates.weighted_log_prob(
            log_probs[:, action], bounded.exp(), q[:, action], segments
        )
        expected = expected + behaviour[:, action].exp() * term
    excess = weights.excess(ratios, segments, maximum=maximum).log_weights.exp()
    correction = surrogates.expected_value(log_probs, unit, excess * q, segments)
    truth = surrogates.expected_value(log_probs, unit, q, segments)
    close(gradient(expected + correction, logits), gradient(truth, logits))


def test_an_action_outside_the_support_contributes_exactly_nothing():
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [0.0, 1.0, 2.0]], requires_grad=True)
    q = torch.tensor([[1.0, torch.inf, 3.0], [torch.nan, torch.inf, 1.0]])
    given = torch.tensor([1.0, 0.0])
    found = surrogates.expected_value(logits.log_softmax(1), given, q, Segments.packed([2]))
    assert found.tolist() == pytest.approx([2.0, 0.0])
    close(gradient(found, logits), [[-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]], 1e-7)


def ppo_of_the_papers(ratio, advantages, low, high, dual=None):
    """Equation by equation: PPO's minimum, and the dual clip's maximum where A < 0."""
    found = torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    if dual is None:
        return found
    return torch.where(advantages < 0, torch.maximum(found, dual * advantages), found)


@pytest.mark.parametrize(("low", "high", "dual"), [(0.2, 0.28, None), (0.1, 0.1, 1.5), (3, 0.2, 3)])
def test_asymmetric_and_dual_clip(low, high, dual):
    b = ragged([40, 30], 6)
    log_ratios, a = b.ratios.requires_grad_(), b.advantages
    found = surrogates.clipped_ratio(
        log_ratios, a, b.segments, clip=low, clip_high=high, dual_clip=dual or math.inf
    )
    want = ppo_of_the_papers(log_ratios.exp(), a, low, high, dual)
    close(found.detach(), want.detach())
    close(gradient(found, log_ratios), gradient(want, log_ratios))
    if dual is not None:
        assert bool((log_ratios.exp() > dual)[a < 0].any())
        # TRL's `delta`, which bounds the unclipped branch for both signs, is the dual clip.
        ratio = log_ratios.exp()
        theirs = torch.minimum(ratio.clamp(max=dual) * a, ratio.clamp(1 - low, 1 + high) * a)
        close(found.detach(), theirs.detach())
        close(gradient(found, log_ratios), gradient(theirs, log_ratios))


def test_a_symmetric_clip_is_the_special_case():
    b = ragged([9], 3)
    one = surrogates.clipped_ratio(b.ratios, b.advantages, b.segments, clip=0.2)
    two = surrogates.clipped_ratio(b.ratios, b.advantages, b.segments, clip=0.2, clip_high=0.2)
    assert torch.equal(one, two)


def test_without_bounds_it_is_the_surrogate_of_trpo():
    b = ragged([9], 3)
    wide = surrogates.clipped_ratio(b.ratios, b.advantages, b.segments, clip=math.inf)
    close(wide, b.ratios.exp() * b.advantages)


def test_clipping_is_as_differentiable_as_it_is():
    b = ragged([12], 8)
    close_to_a_kink = (b.ratios.exp().unsqueeze(1) - torch.tensor([0.8, 1.3, 2.0])).abs() < 1e-3
    assert not bool(close_to_a_kink.any())
    assert torch.autograd.gradcheck(
        lambda x: surrogates.clipped_ratio(
            x, b.advantages, b.segments, clip=0.2, clip_high=0.3, dual_clip=2.0
        ),
        b.ratios.requires_grad_(),
    )


@pytest.mark.parametrize("size", [100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_have_finite_values_and_exact_zeros(size, dtype):
    mask = torch.tensor([True, True, True, True, False, True])
    segments = Segments.packed([6], mask=mask)
    log_ratios = torch.tensor([size, -size, size, -size, size, size], dtype=dtype)
    log_ratios.requires_grad_()
    a = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 0.0], dtype=dtype)
    found = surrogates.clipped_ratio(
        log_ratios, a, segments, clip=0.2, clip_high=math.inf, dual_clip=3.0
    )
    assert found[1:].tolist() == pytest.approx([math.exp(-size), -3.0, -0.8, 0.0, 0.0])
    found = surrogates.clipped_ratio(log_ratios, a, segments, clip=0.2, dual_clip=3.0)
    assert found.tolist() == pytest.approx([1.2, math.exp(-size), -3.0, -0.8, 0.0, 0.0])
    slope = gradient(found, log_ratios)
    assert slope.tolist() == pytest.approx([0.0, math.exp(-size), 0.0, 0.0, 0.0, 0.0])
    # What exponentiates first, and chooses afterwards, has 0 * inf in its gradient: the selected
    # branch is finite, and the step that is masked still poisons everything.
    ratio = log_ratios.exp()
    theirs = ppo_of_the_papers(ratio, a, 0.2, 0.2, 3.0)
    if not bool(ratio[4].isfinite()):
        assert bool(gradient(torch.where(mask, theirs, 0.0), log_ratios).isnan().any())


def test_the_decoupled_objective_weighs_the_advantages():
    # Current, proximal and behaviour policy: the clip is around the proximal one, and a constant
    # weight corrects from the behaviour. A step that is rejected has weight 0.
    b = ragged([6, 4], 9)
    current, proximal, behaviour = b.target.requires_grad_(), b.values.neg(), b.behaviour
    to_proximal = log_ratios(current, proximal, b.segments)
    bounded = weights.truncate(
        log_ratios(proximal, behaviour, b.segments), b.segments, maximum=2.0
    ).log_weights
    kept = torch.arange(10) != 4
    given = weights.reject(bounded, kept, b.segments).log_weights.exp()
    found = surrogates.clipped_ratio(to_proximal, given * b.advantages, b.segments, clip=0.2)
    ratio = to_proximal.exp()
    want = given * ppo_of_the_papers(ratio, b.advantages, 0.2, 0.2)
    close(found.detach(), want.detach())
    close(gradient(found, current), gradient(want, current))
    assert found[4] == 0 and gradient(found, current)[4] == 0


def test_the_gradient_of_gspo_is_the_papers():
    # Zheng et al. 2025, section 4.2: (1/G) Σ_i s_i A_i (1/T_i) Σ_t ∇log π; 0 where s_i is clipped.
    lengths, a = [3, 1, 4], torch.tensor([1.0, -2.0, 0.5]).double()
    b = ragged(lengths, 2)
    log_prob, segments = b.target.requires_grad_(), b.segments
    sequence = weights.geometric_mean(b.ratios, segments)
    spread = segments.spread(a)
    objective = surrogates.clipped_ratio(sequence, spread, segments, clip=0.3, clip_high=0.4)
    loss = reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    want, value, start, clipped = torch.zeros(8).double(), 0.0, 0, []
    for i, length in enumerate(lengths):
        ratios = b.ratios.detach()[start : start + length]
        s = math.exp(float(ratios.mean()))
        clipped.append(s > 1.4 if a[i] > 0 else s < 0.7)
        value += min(s * float(a[i]), min(max(s, 0.7), 1.4) * float(a[i])) / 3
        want[start : start + length] = 0.0 if clipped[-1] else s * float(a[i]) / length / 3
        start += length
    assert any(clipped) and not all(clipped)
    assert loss.item() == pytest.approx(-value)
    close(gradient(-loss, log_prob), want)
    # GSPO-token, section 4.3: the sequence's ratio in value, the token's in gradient. It is the
    # same where the advantage is the sequence's, and allows others.
    token = sequence.detach() + b.ratios - b.ratios.detach()
    objective = surrogates.clipped_ratio(token, spread, segments, clip=0.3, clip_high=0.4)
    again = reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    close(again.detach(), loss.detach())
    close(gradient(-again, log_prob), want)


def test_cispo_is_a_clipped_weight_on_the_score():
    # MiniMax 2025, section 3.1. The gradient of a token that is clipped goes on.
    b = ragged([3, 4], 1)
    log_prob, a = b.target.requires_grad_(), b.advantages
    clipped = weights.clip(b.ratios, b.segments, minimum=0.0, maximum=1.28).log_weights
    found = surrogates.weighted_log_prob(log_prob, clipped.exp(), a, b.segments)
    want = b.ratios.exp().clamp(max=1.28).detach() * a * log_prob
    close(found.detach(), want.detach())
    close(gradient(found, log_prob), gradient(want, log_prob))
    # A ratio of 3 that is clipped to 1.2: torchrl's CISPOLoss gives 0 here.
    ratio = torch.tensor([3.0]).log().requires_grad_()
    one, segments = torch.ones(1), Segments.packed([1])
    bounded = weights.clip(ratio, segments, minimum=0.8, maximum=1.2).log_weights.exp()
    found = surrogates.weighted_log_prob(ratio, bounded, one, segments)
    assert gradient(-found, ratio).item() == pytest.approx(-1.2)
    theirs = -ratio.clamp(math.log(0.8), math.log(1.2)).exp()
    assert gradient(theirs, ratio).item() == 0.0


def test_topr_tapers_whole_sequences():
    # Le Roux et al. 2025: every sequence that was good has weight 1, and one that was
    # not has its probability ratio, at most 1: the product over the sequence.
    segments = Segments.packed([10, 10])
    log_prob = torch.full((20,), -1.5, dtype=torch.float64, requires_grad=True)
    ratios = log_ratios(log_prob, torch.full((20,), -1.0), segments)
    advantages = segments.spread(torch.tensor([1.0, -1.0]).double())
    sequence = weights.trajectory(ratios, segments)
    tapered = weights.truncate(sequence, segments, maximum=1.0).log_weights.exp()
    taper = torch.where(advantages < 0, tapered, 1.0)
    found = surrogates.weighted_log_prob(log_prob, taper, advantages, segments)
    close(gradient(found, log_prob), [1.0] * 10 + [-math.exp(-5)] * 10)
    # Trinity-RFT tapers each token by its own ratio: 90 times as much, after ten tokens.
    token = weights.truncate(ratios, segments, maximum=1.0).log_weights.exp()
    assert token[10].item() == pytest.approx(0.607, abs=1e-3)
    assert taper[10].item() == pytest.approx(0.0067, abs=1e-4)


def test_weighted_likelihood_is_an_exponential_weight():
    # AWR (Peng et al. 2019): exp(A/β) log π, with weights of at most 20. The weight is a bound on
    # what plays the part of a log-ratio; the advantage is spent on it.
    b = ragged([4, 2], 3)
    log_prob, temperature = b.target.requires_grad_(), 0.1
    given = weights.truncate(b.advantages / temperature, b.segments, maximum=20.0)
    unit = torch.ones_like(b.advantages)
    found = surrogates.weighted_log_prob(log_prob, given.log_weights.exp(), unit, b.segments)
    want = (b.advantages / temperature).exp().clamp(max=20.0)
    assert bool((want == 20).any()) and bool((want < 20).any())
    close(gradient(found, log_prob), want)


def test_refusals():
    one, segments = torch.zeros(1), Segments.packed([1])
    with pytest.raises(ValueError, match="clip must be positive, got 0"):
        surrogates.clipped_ratio(one, one, segments, clip=0.0)
    with pytest.raises(ValueError, match="clip_high must be positive, got -1"):
        surrogates.clipped_ratio(one, one, segments, clip=0.2, clip_high=-1.0)
    for dual_clip in (1.0, math.nan):
        with pytest.raises(ValueError, match=f"dual_clip must be above 1.*got {dual_clip}"):
            surrogates.clipped_ratio(one, one, segments, clip=0.2, dual_clip=dual_clip)
    for surrogate in (
        lambda x: surrogates.clipped_ratio(x, one, segments, clip=0.2),
        lambda x: surrogates.weighted_ratio(x, one, one, segments),
    ):
        with pytest.raises(ValueError, match=r"log_ratios is torch\.bfloat16"):
            surrogate(one.bfloat16())
    with pytest.raises(ValueError, match=r"log_probs is torch\.float16"):
        surrogates.expected_value(torch.zeros(1, 2).half(), one, torch.zeros(1, 2), segments)
    with pytest.raises(ValueError, match=r"shape of log_probs, \[1, 2\].*got \[1, 1\]"):
        surrogates.expected_value(torch.zeros(1, 2), one, torch.zeros(1, 1), segments)
    with pytest.raises(ValueError, match=r"log_prob_target is torch\.bfloat16"):
        surrogates.weighted_log_prob(one.bfloat16(), one, one, segments)


@pytest.mark.parametrize(("weight", "advantage"), [(torch.inf, 0.0), (0.0, torch.inf)])
def test_an_infinite_factor_of_nothing_is_nothing(weight, advantage):
    segments, leaf = Segments.packed([1]), torch.tensor([-1.0], requires_grad=True)
    for surrogate in (surrogates.weighted_log_prob, surrogates.weighted_ratio):
        found = surrogate(leaf, torch.tensor([weight]), torch.tensor([advantage]), segments)
        assert found.item() == 0.0 and gradient(found, leaf).item() == 0.0


def test_log_weights_in_the_place_of_weights_are_refused():
    one, segments = torch.zeros(1), Segments.packed([1])
    with pytest.raises(ValueError, match=r"weights hold -2.*pass log_weights\.exp\(\)"):
        surrogates.weighted_log_prob(one, one - 2, one, segments)
    with pytest.raises(ValueError, match="weights must be a torch tensor"):
        surrogates.weighted_log_prob(one, 1.0, one, segments)


def test_an_infinite_weight_on_no_action_value_is_nothing():
    log_probs = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    found = surrogates.expected_value(
        log_probs, torch.tensor([torch.inf]), torch.zeros(1, 2), Segments.packed([1])
    )
    assert found.item() == 0.0 and gradient(found, log_probs).tolist() == [[0.0, 0.0]]
