"""State ratios as fixed points of the flow of visits: closed forms without settings.

The states that the target visits next are those it visits now, moved by its transitions; the log
holds samples of both. Each function solves that equation for one notion of visitation. With
`Tabular` states it is exact counting; with `Linear` ones the same within the span of the features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.marginal.chains import powers, products
from reweigh.core.marginal.visits import Cells, Visits, by_time, pooled
from reweigh.core.scan import times
from reweigh.core.segments import Segments


class StateRatios(NamedTuple):
    """Estimated state ratios, and figures by which to judge them."""

    log_state_ratios: Tensor
    """`[S]` float64: `log m(s_t)`, for `weights.state_marginal`; 0 where no step exists."""
    residual: Tensor
    """Scalar: inflow minus outflow of visits, relative to all visits. Computed with the ratios of
    actions as they are, not self-normalised as in the fit: 0 would be exact."""
    mean: Tensor
    """Scalar: mean ratio over all steps. With visits counted by time, the target's expected number
    of steps over the behaviour's."""
    clipped: Tensor
    """Scalar: share of the steps whose estimate was negative and became 0; 0 in a table."""


@torch.no_grad()
def finite_horizon(visits: Visits, log_ratios: Tensor, segments: Segments) -> StateRatios:
    """Ratios of the states at each time, `m_t = d_t^θ / d_t^φ`, under stationary dynamics.

    `d_{t+1} = d_t K` with one transition `K = Σ ρ 1[s,s'] / Σ ρ 1[s]` for all times, and then over
    the visits logged at `t` (Xie et al. 2019, with transitions pooled over time). The first choice
    where dynamics do not change with time: every transition tells about every time. Consistent for
    `m_t` if every state that the target reaches is logged at the times it reaches it; with `Linear`
    states, if also `E_θ[f(s')|s]` and `m_t` are linear in the features. Tables: `count²` numbers.

    Args:
        visits: The states, as `Tabular` or `Linear`.
        log_ratios: `[S]`.
        segments: Whole episodes.

    Returns:
        Ratios `m_t(s_t)`: `E_φ[Σ_t m_t f_t(s_t)] = E_θ[Σ_t f_t(s_t)]`. An episode that was cut is
        made up for by the others. At an episode's first step they are 1.

    Raises:
        ValueError: Wrong shape; a state outside the table; fragments.
    """
    segments.require_whole("finite_horizon")
    absorbed, initial = _start(visits, segments)
    transition = visits.transitions(log_ratios, absorbed, pooled(segments), segments)[0]
    means = powers(initial, transition, segments.most_steps)
    return _through_time(means, visits, log_ratios, segments)


@torch.no_grad()
def finite_horizon_by_time(visits: Visits, log_ratios: Tensor, segments: Segments) -> StateRatios:
    """Ratios of the states at each time, `m_t = d_t^θ / d_t^φ`, whatever the dynamics.

    `d_{t+1} = d_t K_t` with a transition of its own at each time (Xie et al. 2019). As
    `finite_horizon`, with the steps of one time alone to estimate each transition from: of higher
    variance, and right where dynamics change with time. Tables: `T · count²` numbers.

    Args:
        visits: The states, as `Tabular` or `Linear`.
        log_ratios: `[S]`.
        segments: Whole episodes.

    Returns:
        Ratios, as from `finite_horizon`. With `φ = θ` they are exactly 1, unless episodes were cut
        at different times.

    Raises:
        ValueError: As `finite_horizon`.
    """
    segments.require_whole("finite_horizon_by_time")
    absorbed, initial = _start(visits, segments)
    transitions = visits.transitions(log_ratios, absorbed, by_time(segments), segments)
    return _through_time(products(initial, transitions), visits, log_ratios, segments)


@torch.no_grad()
def discounted(
    visits: Visits, log_ratios: Tensor, segments: Segments, *, discount: float
) -> StateRatios:
    """Ratios of discounted visits, `m(s) = Σ_t γ^t d_t^θ(s) / Σ_t d_t^φ(s)`.

    `d = d_0 + γ d K`, one linear solve (Liu et al. 2018, section 3.2; in the span of features:
    Uehara et al. 2020, section 4). The target's visits go on for ever, the behaviour's are those
    that were logged: `γ^t` is in the ratio already, and is not multiplied again. Consistent as
    `finite_horizon`, for an objective without horizon.

    Args:
        visits: The states, as `Tabular` or `Linear`.
        log_ratios: `[S]`.
        segments: Whole episodes.
        discount: γ in [0, 1); 1 only if the target terminates.

    Returns:
        Ratios: `E_φ[Σ_t m(s_t) f(s_t)] = E_θ[Σ_t γ^t f(s_t)]`. Their sum is `N / (1 - γ)` if
        no episode terminated. With γ = 0 they are the share of a state's visits that are starts.

    Raises:
        ValueError: As `finite_horizon`; γ outside [0, 1].
    """
    contracts.require_between("discount", discount, 0, 1)
    segments.require_whole("discounted")
    absorbed, initial = _start(visits, segments)
    every = pooled(segments)
    transition = visits.transitions(log_ratios, absorbed, every, segments)[0]
    system = torch.eye(len(initial)).to(transition) - discount * transition.mT
    ratios, clipped = _ratios(_solve(system, initial)[None], visits, every, segments)
    flow = visits.mean_next(_products(ratios, log_ratios, segments), absorbed, segments)
    residual = _relative(initial + times(discount, flow), visits.mean(ratios, segments))
    return StateRatios(segments.fill(ratios.log()), residual, segments.mean(ratios), clipped)


@torch.no_grad()
def average_reward(visits: Visits, log_ratios: Tensor, segments: Segments) -> StateRatios:
    """Ratios of long-run visits, `m(s) = d^θ(s) / d(s)`, with `d` the share of the logged steps.

    `d = d K`, the left null vector of `1 - K`, by one linear solve (Liu et al. 2018, section 3.1).
    A terminated episode is followed by a new one, and a state that no step leaves by a new episode
    too. Consistent as `finite_horizon`, for the average reward of a target with one recurrent
    class. Fragments are welcome.

    Args:
        visits: The states, as `Tabular` or `Linear`.
        log_ratios: `[S]`.

    Returns:
        Ratios with mean 1. If all episodes terminated and `φ = θ` they are exactly 1 in a table.

    Raises:
        ValueError: Wrong shape; a state outside the table.
    """
    every = pooled(segments)
    logged = visits.mean(segments.inside.double(), segments)
    starts = visits.mean(segments.is_first.double(), segments)
    starts = starts * len(segments) / segments.is_first.sum().clamp(min=1)
    transition = visits.transitions(log_ratios, starts, every, segments)[0]
    # f(s)·total is 1 at every step: it turns the homogeneous equation into one with a solution.
    total = visits.coefficients(logged[None], every, segments)[0]
    system = torch.eye(len(logged)).to(transition) - transition.mT + torch.outer(logged, total)
    ratios, clipped = _ratios(_solve(system, logged)[None], visits, every, segments)
    mean = segments.mean(ratios)
    ratios = ratios / torch.where(mean > 0, mean, 1.0)
    flow = visits.mean_next(_products(ratios, log_ratios, segments), starts, segments)
    residual = _relative(flow, visits.mean(ratios, segments))
    return StateRatios(segments.fill(ratios.log()), residual, segments.mean(ratios), clipped)


def _through_time(
    means: Tensor, visits: Visits, log_ratios: Tensor, segments: Segments
) -> StateRatios:
    """The ratios that have the given means `[T, d]`, one for each time."""
    ratios, clipped = _ratios(means, visits, by_time(segments), segments)
    absorbed = torch.zeros_like(means[0])
    leaves = torch.where(segments.is_last, 0.0, _products(ratios, log_ratios, segments))
    inflow = visits.mean_next(leaves, absorbed, segments)
    outflow = visits.mean(torch.where(segments.is_first, 0.0, ratios), segments)
    residual = _relative(inflow, outflow)
    return StateRatios(segments.fill(ratios.log()), residual, segments.mean(ratios), clipped)


def _start(visits: Visits, segments: Segments) -> tuple[Tensor, Tensor]:
    """Features after a termination, which are 0, and the mean features of first states, `[d]`."""
    initial = visits.mean(segments.is_first.double(), segments)
    return torch.zeros_like(initial), initial


def _ratios(
    means: Tensor, visits: Visits, cells: Cells, segments: Segments
) -> tuple[Tensor, Tensor]:
    """The ratios with the given means, clipped at 0, and the share that was negative."""
    ratios = visits.evaluate(visits.coefficients(means, cells, segments), cells, segments)
    clipped = ratios.clamp(min=0.0)

    def mass(x):
        return x.new_zeros(cells.rows).index_add(0, cells.row, segments.fill(x))

    # Clipping adds mass to a cell: the other ratios of the cell are scaled down by as much.
    before, after = mass(ratios).clamp(min=0.0), mass(clipped)
    scale = torch.where(after > 0, before / after, 0.0)
    return clipped * scale[cells.row], segments.mean(ratios < 0)


def _products(ratios: Tensor, log_ratios: Tensor, segments: Segments) -> Tensor:
    """`m_t ρ_t`, multiplied as logarithms: a ratio may overflow where `m` is 0."""
    return segments.fill((ratios.log() + segments.as_float64("log_ratios", log_ratios)).exp())


def _relative(inflow: Tensor, outflow: Tensor) -> Tensor:
    return (inflow - outflow).norm() / outflow.norm().clamp(min=torch.finfo(torch.float64).tiny)


def _solve(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix^-1 x`; of the solutions of a singular system, the smallest."""
    return torch.linalg.pinv(matrix) @ x
