"""Descriptions of the states that a log visited: by number, or by features.

Both have the same methods: the mean features of weighted states and of weighted next states, and,
for each *cell* (all times together, or each time by itself), the target's transition and the ratio
that has given means. The fixed points are written once, for both. `Tabular` equals `Linear` with
one-hot features, exactly.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core.segments import Segments
from reweigh.core.sums import relative_weights


class Cells(NamedTuple):
    """Groups of steps that share one transition, and a place for each step in a table of them."""

    row: Tensor
    """`[S]` int64: the step's cell."""
    column: Tensor
    """`[S]` int64: its place in the cell."""
    rows: int
    columns: int


def pooled(segments: Segments) -> Cells:
    """One cell for all steps."""
    place = torch.arange(segments.size, device=segments.mask.device)
    return Cells(torch.zeros_like(place), place, 1, segments.size)


def by_time(segments: Segments) -> Cells:
    """A cell for each time."""
    return Cells(segments.time, segments.episode, segments.most_steps, len(segments))


class Visits(Protocol):
    """A description of states with `d` numbers each, as the fixed points use it."""

    def mean(self, weights: Tensor, segments: Segments) -> Tensor:
        """`(1/N) Σ weight · f(s)` over all steps, `[d]`."""
        ...

    def mean_next(self, weights: Tensor, ended: Tensor, segments: Segments) -> Tensor:
        """`(1/N) Σ weight · f(s')`, with `ended [d]` for the next state of a terminated episode."""
        ...

    def transitions(
        self, log_ratios: Tensor, ended: Tensor, cells: Cells, segments: Segments
    ) -> Tensor:
        """`K [cells, d, d]` with `f(s) K ≈ E_θ[f(s')|s]`; `ended [d]` follows a termination."""
        ...

    def coefficients(self, means: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """`a [cells, d]` such that `(1/N) Σ f(s)·a f(s)` over a cell's steps is `means`."""
        ...

    def evaluate(self, a: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """`f(s)·a` at each step, `[S]`."""
        ...


@dataclass(frozen=True, eq=False)
class Tabular:
    """States by number, as the fixed points read them.

    An episode that `terminated` ended in a state with no future, where its mass is absorbed; its
    final state is not read. One that was cut, or reached the horizon, did not terminate, and its
    last step is a transition like any other. A state that some episode ends in and no step leaves
    leads nowhere, and the mean ratio lacks the target's visits after it.
    """

    states: Tensor
    """`[S]` int64 in [0, count)."""
    final_states: Tensor
    """`[N]` int64: the state after each episode's last step."""
    terminated: Tensor
    """`[N]` bool."""
    count: int
    """Number of states; tables hold its square, times the horizon where time matters."""

    def moves(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """State and next state of each step, `[S]` each; the next is 0 where an episode terminated.

        Raises:
            ValueError: Wrong shape or dtype; a state outside [0, count).
        """
        contracts.require_vector("states", self.states, segments.size, "position")
        contracts.require_vector("final_states", self.final_states, len(segments), "episode")
        require_terminated(self.terminated, segments)
        reached = ~self.terminated & (segments.lengths > 0)
        states = segments.fill(self.states)
        final = torch.where(reached, self.final_states, 0)
        for name, x in (("states", states), ("final_states", final)):
            if x.is_floating_point():
                raise ValueError(f"{name} must be int64, got {x.dtype}: features make a Linear")
            outside = (x < 0) | (x >= self.count)
            if bool(outside.any()):
                raise ValueError(
                    f"{name} hold {int(x[outside][0])}, outside [0, {self.count}): count must "
                    "exceed the largest state"
                )
        return states, segments.next(states, final)

    def mean(self, weights: Tensor, segments: Segments) -> Tensor:
        """Weighted visits of each state, an episode."""
        return self._visits(self.moves(segments)[0], weights) / len(segments)

    def mean_next(self, weights: Tensor, ended: Tensor, segments: Segments) -> Tensor:
        """Weighted visits of each next state, an episode."""
        absorbs = ends(self.terminated, segments)
        following = self._visits(self.moves(segments)[1], torch.where(absorbs, 0.0, weights))
        return (following + torch.where(absorbs, weights, 0.0).sum() * ended) / len(segments)

    def transitions(
        self, log_ratios: Tensor, ended: Tensor, cells: Cells, segments: Segments
    ) -> Tensor:
        """`Σ ρ 1[s, s'] / Σ ρ 1[s]`: rows self-normalise; a state never left leads to `ended`."""
        states, following = self.moves(segments)
        count, row = self.count, cells.row * self.count + states
        weights = relative_weights(log_ratios, row, cells.rows * count, segments)
        absorbs = ends(self.terminated, segments)

        def table(size, place, x):
            return weights.new_zeros(size).index_add(0, place, x)

        total = table(cells.rows * count, row, weights)
        stopped = table(cells.rows * count, row, torch.where(absorbs, weights, 0.0))
        moved = torch.where(absorbs, 0.0, weights)
        moved = table(cells.rows * count**2, row * count + following, moved).reshape(-1, count)
        share = (moved + stopped.unsqueeze(1) * ended) / torch.where(total > 0, total, 1.0)[:, None]
        return torch.where((total > 0).unsqueeze(1), share, ended).reshape(-1, count, count)

    def coefficients(self, means: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """The mass of each state over its logged mass; 0 where nothing is logged."""
        place = cells.row * self.count + self.moves(segments)[0]
        visits = segments.inside.double()
        visits = visits.new_zeros(means.numel()).index_add(0, place, visits).reshape(means.shape)
        return torch.where(visits > 0, means * len(segments) / visits.clamp(min=1.0), 0.0)

    def evaluate(self, a: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """Each step's entry."""
        return segments.fill(a[cells.row, self.moves(segments)[0]])

    def _visits(self, states: Tensor, weights: Tensor) -> Tensor:
        return weights.new_zeros(self.count).index_add(0, states, weights)


@dataclass(frozen=True, eq=False)
class Linear:
    """States by features, as the fixed points read them: `w(s) = f(s)·a`.

    The target's transition is a regression of `f(s')` on `f(s)` with weights `ρ`. It tends to what
    the unweighted moment equations of Liu et al. 2018 and Uehara et al. 2020 give (`E[ρ|s] = 1`),
    and like a row-normalised table it does not care by how much the ratios of a batch exceed 1.
    """

    features: Tensor
    """`[S, d]`; a constant belongs into their span."""
    final_features: Tensor
    """`[N, d]`: of the state after each episode's last step; not read where it terminated."""
    terminated: Tensor
    """`[N]` bool, as in `Tabular`."""
    ridge: float = 0.0
    """Added to every Gram matrix, in units of its mean diagonal; 0 takes pseudo-inverses."""

    def moves(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """Features and next features of each step, `[S, d]` each; not defined after a termination.

        Raises:
            ValueError: Wrong shape; a negative ridge.
        """
        contracts.require_between("ridge", self.ridge, 0, torch.inf)
        return feature_moves(self.features, self.final_features, self.terminated, segments)

    def mean(self, weights: Tensor, segments: Segments) -> Tensor:
        """Mean of the weighted features."""
        return weights @ self.moves(segments)[0] / len(segments)

    def mean_next(self, weights: Tensor, ended: Tensor, segments: Segments) -> Tensor:
        """Mean of the weighted next features."""
        return weights @ self._next(ended, segments) / len(segments)

    def transitions(
        self, log_ratios: Tensor, ended: Tensor, cells: Cells, segments: Segments
    ) -> Tensor:
        """`(Σ ρ f f')^-1 Σ ρ f f(s')`."""
        weights = relative_weights(log_ratios, cells.row, cells.rows, segments).unsqueeze(1)
        features = self.moves(segments)[0]
        weighted = _table(features * weights, cells, segments).mT
        gram = weighted @ _table(features, cells, segments)
        crossed = weighted @ _table(self._next(ended, segments), cells, segments)
        return self._inverse(gram) @ crossed

    def coefficients(self, means: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """The means over the Gram matrix of the cell's logged states."""
        table = _table(self.moves(segments)[0], cells, segments)
        return (self._inverse(table.mT @ table / len(segments)) @ means.unsqueeze(2)).squeeze(2)

    def evaluate(self, a: Tensor, cells: Cells, segments: Segments) -> Tensor:
        """The features times the coefficients of their cell."""
        return (self.moves(segments)[0] * a[cells.row]).sum(1)

    def _next(self, ended: Tensor, segments: Segments) -> Tensor:
        absorbs = ends(self.terminated, segments).unsqueeze(1)
        return torch.where(absorbs, ended, self.moves(segments)[1])

    def _inverse(self, gram: Tensor) -> Tensor:
        scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        one = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        return torch.linalg.pinv(gram + self.ridge * scale * one, hermitian=True)


def require_terminated(terminated: Tensor, segments: Segments) -> None:
    """Requires `terminated [N]` bool.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    contracts.require_vector("terminated", terminated, len(segments), "episode")
    contracts.require_boolean("terminated", terminated)


def feature_moves(
    features: Tensor, final_features: Tensor, terminated: Tensor, segments: Segments
) -> tuple[Tensor, Tensor]:
    """Features and next features of each step, `[S, d]` each; the next are undefined at `ends`.

    Raises:
        ValueError: Wrong shape.
    """
    require_terminated(terminated, segments)
    contracts.require_rows("features", features, segments.size)
    if final_features.shape != (len(segments), features.shape[1]):
        raise ValueError(
            f"final_features must have shape {[len(segments), features.shape[1]]}, a row for each "
            f"episode, got {list(final_features.shape)}"
        )
    features = segments.rows_as_float64("features", features)
    place = torch.arange(segments.size + len(segments), device=features.device)
    following = segments.next(place[: segments.size], place[segments.size :])
    after = torch.cat([features, final_features.double()])[following]
    return features, torch.where(segments.inside.unsqueeze(1), after, 0.0)


def ends(terminated: Tensor, segments: Segments) -> Tensor:
    """`[S]` bool: the last steps of the episodes that terminated."""
    return segments.is_last & terminated[segments.episode]


def _table(x: Tensor, cells: Cells, segments: Segments) -> Tensor:
    """Rows `[S, d]` in a table `[cells, columns, d]`, 0 where no step exists."""
    steps = segments.existing
    table = x.new_zeros(cells.rows, cells.columns, x.shape[1])
    return table.index_put((cells.row[steps], cells.column[steps]), x[steps])
