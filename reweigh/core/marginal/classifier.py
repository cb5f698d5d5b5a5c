"""State ratios from telling a new policy's states from all states, where a few are sampled."""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments

_HALVINGS = 12
_TOLERANCE = 1e-12


class Classified(NamedTuple):
    """State ratios by a classifier, and the state of the fit."""

    log_state_ratios: Tensor
    """`[S]` float64: `log d_new / d_all`, at most `-log(share of the new steps)`."""
    log_odds: Tensor
    """`[S]` float64: `log d_new / d_old`, not bounded."""
    coefficients: Tensor
    """`[d + 1]`, the intercept last: the next batch's `start`."""
    mean: Tensor
    """Scalar: mean ratio over all steps; 1 for a classifier at its optimum."""
    cross_entropy: Tensor
    """Scalar, in nats: that of the shares alone says that the states do not differ."""


@torch.no_grad()
def classifier(
    features: Tensor,
    is_new: Tensor,
    segments: Segments,
    *,
    ridge: float = 1e-4,
    start: Tensor | None = None,
    maximum_iterations: int = 50,
) -> Classified:
    """`d_new(s) / d_all(s) = P(new | s) / P(new)` by logistic regression.

    Density ratios by classification: Qin 1998; Bickel et al. 2007. Corrects the states of old
    batches toward the newest policy of which there are states, against the *mixture* of all that is
    logged, so that ratios stay below one over the new share (a defensive mixture). It
    needs states of the policy itself. Consistent if the log-odds are linear in the features: put
    the time among them where ratios are to depend on it.

    Args:
        features: `[S, d]`, given or `random_fourier`; an intercept is added.
        is_new: `[S]` bool: steps that the newest policy sampled.
        ridge: Added to the mean cross-entropy as `ridge/2 |coefficients|²`, the intercept apart.
        start: `[d + 1]`, coefficients of an earlier fit.
        maximum_iterations: Newton steps, each halved until the loss falls.

    Returns:
        Ratios, their coefficients, and how well the states are told apart. With one-hot features
        and no ridge, ratios are those of the visits counted.

    Raises:
        ValueError: Wrong shape; a negative ridge; steps of one kind only.
    """
    contracts.require_between("ridge", ridge, 0, torch.inf)
    contracts.require_at_least("maximum_iterations", maximum_iterations, 1)
    contracts.require_vector("is_new", is_new, segments.size, "position")
    contracts.require_boolean("is_new", is_new)
    x = segments.rows_as_float64("features", features)
    x = torch.cat([x, segments.inside.double().unsqueeze(1)], 1)
    y = segments.fill(is_new.double())
    share = segments.mean(is_new)
    if not 0 < float(share) < 1:
        raise ValueError(
            f"is_new holds for a share of {float(share):g} of the steps: a classifier needs states "
            "of the new policy and of older ones"
        )
    penalty = torch.full_like(x[0], ridge)
    penalty[-1] = 0.0
    if start is None:
        start = torch.zeros_like(penalty)
        start[-1] = share.logit()
    contracts.require_vector("start", start, len(penalty), "feature and the intercept")
    beta = _newton(x, y, penalty, start.double(), segments, maximum_iterations)
    logits = x @ beta
    log_state_ratios = segments.fill(torch.nn.functional.logsigmoid(logits) - share.log())
    return Classified(
        log_state_ratios,
        segments.fill(logits - share.logit()),
        beta,
        segments.mean(log_state_ratios.exp()),
        _cross_entropy(logits, y, segments),
    )


def _newton(x, y, penalty, beta, segments, maximum_iterations) -> Tensor:
    """Minimises the penalised mean cross-entropy by Newton's method with halved steps.

    Where no probability is in doubt the curvature vanishes and Newton's step is useless. That with
    the largest curvature there can be (Böhning and Lindsay 1988) lowers the loss from anywhere.
    """
    size = segments.inside.sum().clamp(min=1)
    largest = torch.linalg.pinv(x.mT @ x / (4 * size) + penalty.diag(), hermitian=True)
    fractions = 0.5 ** torch.arange(_HALVINGS, device=x.device, dtype=x.dtype)

    def loss(betas):
        entropy = _cross_entropy((x @ betas.mT).mT, y, segments)
        return entropy + 0.5 * (penalty * betas.square()).sum(-1)

    for _ in range(maximum_iterations):
        p = (x @ beta).sigmoid()
        gradient = x.mT @ (p - y) / size + penalty * beta
        curvature = x.mT @ (x * (p * (1 - p)).unsqueeze(1)) / size + penalty.diag()
        step = torch.linalg.pinv(curvature, hermitian=True) @ gradient
        tried = beta - torch.cat([fractions.unsqueeze(1) * step, (largest @ gradient)[None]])
        losses = loss(tried)
        # Near the optimum losses differ by rounding alone, and Newton's own step is the best.
        losses[0] -= _TOLERANCE
        beta = tried[losses.argmin()]
        if bool(gradient.norm() < _TOLERANCE):
            break
    return beta


def _cross_entropy(logits: Tensor, y: Tensor, segments: Segments) -> Tensor:
    """Mean of `-log P(y)` over existing steps, `[..., S]` to `[...]`."""
    entropy = torch.nn.functional.softplus(logits) - y * logits
    entropy = torch.where(segments.inside, entropy, 0.0)
    return entropy.sum(-1) / segments.inside.sum().clamp(min=1)
