"""Kernel minimax weights: the ratio that balances the flow of visits for all of a kernel's space.

A convex quadratic problem, solved in the features of the kernel's own empirical map: exact while
the states are few, in the span of some of them (Nyström) where they are many.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.marginal.visits import ends, feature_moves
from reweigh.core.segments import Segments

_EXACT_BELOW = 5000
_RANK_TOLERANCE = 1e-10
_BANDWIDTH_SAMPLE = 1000


class KernelRatios(NamedTuple):
    """State ratios from a kernel, and figures by which to judge them."""

    log_state_ratios: Tensor
    """`[S]` float64: `log m(s_t)`, for `weights.state_marginal`; 0 where no step exists."""
    residual: Tensor
    """Scalar: the flow's residual on held-out episodes, over that of a constant ratio: 1 is no
    better than the constant. It does not reach 0, since held-out episodes are noisy too."""
    mean: Tensor
    """Scalar: mean ratio over all steps."""
    clipped: Tensor
    """Scalar: share of the steps whose estimate was negative and became 0."""
    ridge: Tensor
    """Scalar: the regularisation that held-out episodes chose."""
    bandwidth: Tensor
    """Scalar: that of the kernel."""


def random_fourier(
    dimension: int, *, count: int, bandwidth: float | Tensor, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Random Fourier features of a Gaussian kernel (Rahimi and Recht 2007), and a constant.

    `φ(x)·φ(y) → 1 + exp(-|x - y|² / 2σ²)` as their number grows. For `Linear` and `classifier`,
    where states are vectors and their table would be too large.

    Args:
        dimension: Numbers a state.
        count: Number of features, at least 1, the constant apart.
        bandwidth: σ.
        generator: Draws them.

    Returns:
        A function `[..., dimension]` to `[..., count + 1]`, float64, the constant last.

    Raises:
        ValueError: A count below 1; a bandwidth that is not positive.
    """
    contracts.require_at_least("count", count, 1)
    contracts.require_positive("bandwidth", float(bandwidth))
    where = {"generator": generator, "device": generator.device, "dtype": torch.float64}
    frequencies = torch.randn(dimension, count, **where) / float(bandwidth)
    phases = 2 * math.pi * torch.rand(count, **where)

    def features(x: Tensor) -> Tensor:
        waves = (x.double() @ frequencies.to(x.device) + phases.to(x.device)).cos()
        waves = waves * math.sqrt(2 / count)
        return torch.cat([waves, torch.ones_like(waves[..., :1])], -1)

    return features


@torch.no_grad()
def kernel_discounted(
    features: Tensor,
    final_features: Tensor,
    terminated: Tensor,
    log_ratios: Tensor,
    segments: Segments,
    *,
    discount: float,
    generator: torch.Generator,
    bandwidth: float | Tensor | None = None,
    landmarks: int | Tensor = 500,
    ridges: Sequence[float] = tuple(10.0**-k for k in range(1, 10)),
    folds: int = 5,
) -> KernelRatios:
    """Minimax state weights: the ratios of `discounted`, in the space of a Gaussian kernel.

    Uehara et al. 2020 (MWL, section 4), with weights of states (Liu et al. 2018): minimise over
    `w = 1 + g`, g in the kernel's space, `sup_f E[w (γ ρ f(s') + (1-γ) f̄(s_0) - f(s))]² + ridge
    |g|²`, f in its unit ball and `f̄(s_0)` the mean over first states. The supremum is a norm, so
    the minimum is one linear solve. The ridge is the one of `ridges` whose ratios leave the least
    on episodes that were held out, by folds. A terminated episode is followed by a new one, which
    is the same by renewal. With γ = 1 the ratios are those of `average_reward`. Consistent if the
    ratio is a constant plus a function of the space, as the ridge goes to 0. Ratios of actions
    enter as they are, not self-normalised: bound them first if they spread.

    Args:
        features: `[S, d]`, in units in which one distance suits all: standardise them.
        final_features: `[N, d]`: of the state after each episode's last step.
        terminated: `[N]` bool.
        log_ratios: `[S]`.
        segments: At least 2 episodes of at least a step.
        discount: γ in [0, 1].
        generator: Draws the landmarks and the states for the median heuristic.
        bandwidth: σ of `exp(-|x - y|² / 2σ²)`; without it, the median distance between states of
            which up to 1000 are drawn.
        landmarks: Number of states whose kernels span the ratio if more than 5000 differ; or the
            states themselves, `[k, d]`.
        ridges: Candidates, above 0; a single one is taken as it is.
        folds: Parts that are held out in turn, each of every `folds`-th episode.

    Returns:
        Ratios: `E_φ[Σ_t m(s_t) f(s_t)] = E_θ[Σ_t γ^t f(s_t)]` if γ < 1; with mean 1 if γ = 1. With
        a bandwidth far below all distances, hardly a ridge, and ratios of actions whose mean is 1
        in each state, it is `discounted`.

    Raises:
        ValueError: Wrong shape; γ outside [0, 1]; a ridge that is not positive; fragments; too
            few episodes; infinite ratios.
    """
    contracts.require_between("discount", discount, 0, 1)
    contracts.require_at_least("folds", folds, 2)
    for ridge in ridges:
        contracts.require_positive("ridges", ridge)
    x, after = feature_moves(features, final_features, terminated, segments)
    ratio = _read_ratios(log_ratios, segments)
    if bandwidth is None:
        bandwidth = _median_bandwidth(x[segments.existing], generator)
    width = torch.as_tensor(bandwidth, dtype=torch.float64, device=x.device)
    contracts.require_positive("bandwidth", float(width))

    steps = segments.existing
    stops = ends(terminated, segments)[steps]
    embed = _empirical_map(torch.cat([x[steps], after[steps][~stops]]), width, landmarks, generator)
    phi, ratio = embed(x[steps]), ratio[steps]
    starts = phi[segments.is_first[steps]].mean(0)
    ahead = torch.where(stops.unsqueeze(1), starts, embed(after[steps]))
    drift = discount * ratio.unsqueeze(1) * ahead - phi + (1 - discount) * starts

    best, residual = _cross_validate(phi, drift, segments.episode[steps] % folds, ridges)
    g = _solve(phi, drift, [best])[0]
    estimate = 1.0 + phi @ g
    m = estimate.clamp(min=0.0)
    m = m / m.mean() if bool((m > 0).any()) else torch.ones_like(m)
    if discount < 1:
        # Episodes restart at this rate, and their number is known: renewal says how long they are.
        restarts = (1 - discount) + discount * torch.where(stops, ratio, 0.0)
        m = m * len(segments) / (m * restarts).sum()
    log_m = torch.zeros(segments.size, dtype=x.dtype, device=x.device).index_copy(0, steps, m.log())
    return KernelRatios(
        log_m,
        residual,
        m.mean(),
        (estimate < 0).double().mean(),
        x.new_tensor(best),
        width,
    )


def _read_ratios(log_ratios: Tensor, segments: Segments) -> Tensor:
    segments.require_whole("kernel_discounted")
    if int((segments.lengths > 0).sum()) < 2:
        raise ValueError(
            f"{int((segments.lengths > 0).sum())} of {len(segments)} episodes have steps: to hold "
            "some out, at least 2 must"
        )
    ratios = segments.as_float64("log_ratios", log_ratios).exp()
    if not bool(ratios.isfinite().all()):
        raise ValueError(
            f"log_ratios reach {float(segments.fill(log_ratios).max()):g}, a ratio that is not "
            "finite: bound them first (weights.truncate)"
        )
    return ratios


def _median_bandwidth(points: Tensor, generator: torch.Generator) -> Tensor:
    """The median distance of up to 1000 points that differ, drawn at random; 1 if none differ."""
    order = torch.randperm(len(points), generator=generator, device=generator.device)
    distances = torch.pdist(points[order[:_BANDWIDTH_SAMPLE].to(points.device)])
    distances = distances[distances > 0]
    return distances.median() if distances.numel() else distances.new_ones(())


def _empirical_map(
    points: Tensor, bandwidth: Tensor, landmarks: int | Tensor, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """A function to features whose inner products are the kernel, if one point is a landmark."""
    if isinstance(landmarks, Tensor):
        contracts.require_rows("landmarks", landmarks, len(landmarks))
        points = landmarks.to(points)
    points = points.unique(dim=0)
    if isinstance(landmarks, int) and len(points) > _EXACT_BELOW:
        chosen = torch.randperm(len(points), generator=generator, device=generator.device)
        points = points[chosen[:landmarks].to(points.device)]

    def kernel(x: Tensor) -> Tensor:
        return (torch.cdist(x, points) / bandwidth).square().div(-2).exp()

    eigenvalues, vectors = torch.linalg.eigh(kernel(points))
    kept = eigenvalues > _RANK_TOLERANCE * eigenvalues.max()
    whitening = vectors[:, kept] / eigenvalues[kept].sqrt()
    return lambda x: kernel(x) @ whitening


def _solve(phi: Tensor, drift: Tensor, ridges: Sequence[float]) -> Tensor:
    """`argmin_g |mean (1 + φ·g) drift|² + ridge |g|²` for each ridge, `[ridges, d]`."""
    u, scale, v = torch.linalg.svd(drift.mT @ phi / len(phi))
    shrunk = scale / (scale.square() + drift.new_tensor(ridges).unsqueeze(1))
    return -(shrunk * (u.mT @ drift.mean(0))) @ v


def _cross_validate(
    phi: Tensor, drift: Tensor, fold: Tensor, ridges: Sequence[float]
) -> tuple[float, Tensor]:
    """The ridge of the smallest residual on held-out folds; the residual over that of `m = 1`."""
    held_out = [fold == k for k in fold.unique().tolist()]
    residuals = torch.stack([_residuals(phi, drift, ~out, out, ridges) for out in held_out]).sum(0)
    best = int(residuals[1:].argmin())
    return ridges[best], (residuals[1 + best] / residuals[0]).sqrt()


def _residuals(phi, drift, fitted, out, ridges) -> Tensor:
    """Squared residual on the steps held out, of the constant ratio and then of each ridge's."""
    g = _solve(phi[fitted], drift[fitted], ridges)
    ratios = (1.0 + phi[out] @ g.mT).clamp(min=0.0).mT
    mass = ratios.mean(1, keepdim=True)
    ratios = torch.cat([torch.ones_like(ratios[:1]), ratios / mass])
    squares = (ratios @ drift[out] / int(out.sum())).square().sum(1)
    # A ridge that clips every step held out to 0 is no candidate.
    return torch.cat([squares[:1], torch.where(mass.squeeze(1) > 0, squares[1:], torch.inf)])
