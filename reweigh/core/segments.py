"""Where episodes lie in a flat time axis.

Every tensor of steps in this package is flat, `[S]`, and a `Segments` says which stretch of it is
which episode. Packed trajectories (all episodes end to end) and a padded batch `[B, T]` seen
through `x.flatten()` are the same thing with other numbers.

**A masked step does not exist.** Where the mask is False, or no episode covers a position, every
function gives what it would give with that step deleted (time counts existing steps), returns 0 at
the position, and neither value nor gradient depends on what lies there, be it NaN or infinity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from reweigh import contracts
from reweigh.core import layouts


@dataclass(frozen=True, eq=False)
class Segments:
    """Episodes as stretches of a flat time axis of `S` positions.

    Episodes may lie anywhere, in any order, and may be empty (an empty episode counts in `N`), but
    may not overlap. `Segments.packed` and `Segments.padded` build the two usual layouts.

    Raises:
        ValueError: No episode, an overlap, a bound outside the axis, or a wrong shape or dtype.
    """

    start: Tensor
    """`[N]` int64: first position of each episode."""
    stop: Tensor
    """`[N]` int64: one past its last position."""
    mask: Tensor
    """`[S]` bool: positions that exist; False is padding or a hole inside an episode."""
    time_start: Tensor
    """`[N]` int64: time of the first step; above 0 for a fragment that starts mid-episode."""

    def __post_init__(self):
        for name in ("start", "stop", "time_start"):
            contracts.require_integers(name, getattr(self, name), self.start.numel())
        contracts.require_vector("mask", self.mask, self.mask.numel(), "position")
        contracts.require_boolean("mask", self.mask)
        contracts.require_not_negative("time_start", self.time_start)
        contracts.require_disjoint(self.start, self.stop, self.mask.numel())

    @classmethod
    def packed(
        cls,
        lengths: Tensor | Sequence[int],
        *,
        mask: Tensor | None = None,
        time_start: Tensor | None = None,
    ) -> Self:
        """Episodes of the given lengths `[N]`, end to end: `S = sum(lengths)`."""
        lengths = contracts.counts("lengths", lengths)
        stop = lengths.cumsum(0)
        return cls._build(stop - lengths, stop, int(lengths.sum()), mask, time_start)

    @classmethod
    def padded(
        cls,
        lengths: Tensor | Sequence[int],
        horizon: int,
        *,
        mask: Tensor | None = None,
        time_start: Tensor | None = None,
    ) -> Self:
        """Episodes of the given lengths `[N]`, each in its own row of `horizon` positions.

        `S = N * horizon`. A mask makes holes in the lengths, which count positions, holes included;
        for a mask alone, there is `masked`.
        """
        lengths = contracts.counts("lengths", lengths)
        if lengths.numel() and int(lengths.max()) > horizon:
            raise ValueError(f"an episode of {int(lengths.max())} steps exceeds horizon={horizon}")
        start = torch.arange(lengths.numel(), device=lengths.device) * horizon
        return cls._build(start, start + lengths, lengths.numel() * horizon, mask, time_start)

    @classmethod
    def masked(cls, mask: Tensor) -> Self:
        """Each row of a batch `[N, T]` an episode, of the steps where the mask is True."""
        contracts.require_boolean("mask", mask)
        contracts.require_rows("mask", mask, len(mask))
        return cls.padded([mask.shape[1]] * len(mask), mask.shape[1], mask=mask.flatten())

    @classmethod
    def from_cu_seqlens(cls, cu_seqlens: Tensor, *, size: int | None = None) -> Self:
        """Episodes end to end by cumulative lengths `[N + 1]`, as variable-length attention takes.

        Args:
            cu_seqlens: Integers from 0: episode `i` ends before position `cu_seqlens[i + 1]`.
            size: `S`; positions from `cu_seqlens[-1]` on are padding. Without it there is none.
        """
        start, stop = layouts.bounds_of_cu_seqlens(cu_seqlens)
        return cls._build(start, stop, int(stop[-1]) if size is None else size, None, None)

    @classmethod
    def from_episode_ids(cls, ids: Tensor) -> Self:
        """Episodes as runs of one number, in any shape laid end to end; below 0 is padding."""
        start, stop = layouts.bounds_of_ids(ids.reshape(-1))
        return cls._build(start, stop, ids.numel(), None, None)

    @classmethod
    def _build(cls, start, stop, size, mask, time_start) -> Self:
        every = torch.ones(size, dtype=torch.bool, device=start.device) if mask is None else mask
        contracts.require_vector("mask", every, size, "position")
        time_start = torch.zeros_like(start) if time_start is None else time_start
        segments = cls(*(x.to(every.device) for x in (start, stop, every, time_start)))
        if mask is not None:
            contracts.require_covered("mask", mask, segments.inside)
        return segments

    def split(self, label: Tensor) -> Self:
        """The turns of all episodes, as segments of their own: runs of steps with one label `[S]`.

        Weights over them (`weights.trajectory(log_ratios, turns)`) are products within a turn.
        """
        contracts.require_vector("label", label, self.size, "position")
        label = label[self.existing]
        begins = self.age == 0
        begins[1:] |= label[1:] != label[:-1]
        first = begins.nonzero().squeeze(1)
        last = torch.cat([first[1:], first.new_tensor([len(label)])[: first.numel()]]) - 1
        start, stop = self.existing[first], self.existing[last] + 1
        return type(self)(start, stop, self.inside, torch.zeros_like(first))

    def to(self, device: torch.device | str) -> Self:
        """The same segments on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        """`N`, the number of episodes, empty ones included."""
        return self.start.numel()

    @property
    def size(self) -> int:
        """`S`: positions, padding included."""
        return self.mask.numel()

    @cached_property
    def longest(self) -> int:
        """Positions that the longest episode spans."""
        return int((self.stop - self.start).max())

    @cached_property
    def lengths(self) -> Tensor:
        """`[N]` int64: existing steps of each episode."""
        return self.inside.new_zeros(len(self), dtype=torch.int64).index_add(
            0, self.episode, self.inside.long()
        )

    @cached_property
    def most_steps(self) -> int:
        """Existing steps of the longest episode, at least 1."""
        return max(int(self.lengths.max()), 1)

    @cached_property
    def has_fragments(self) -> bool:
        """Whether an episode starts after time 0."""
        return bool((self.time_start > 0).any())

    def require_whole(self, name: str) -> None:
        """Refuses fragments, for the function of the given name."""
        if self.has_fragments:
            raise ValueError(
                f"{name} needs whole episodes, but some start after time 0, and their earlier "
                "steps are not there to sum: join the fragments of an episode first"
            )

    @cached_property
    def _cover(self) -> tuple[Tensor, Tensor]:
        """Positions covered by episodes, and the episode at each of them."""
        spans = self.stop - self.start
        owner = torch.arange(len(self), device=spans.device).repeat_interleave(spans)
        rank = torch.arange(owner.numel(), device=spans.device)
        return rank + (self.start - (spans.cumsum(0) - spans))[owner], owner

    def _place(self, covered: Tensor) -> Tensor:
        """Numbers of the covered positions, in a tensor `[S]` that is 0 elsewhere."""
        return torch.zeros_like(self.mask, dtype=torch.int64).index_copy(0, self._cover[0], covered)

    @cached_property
    def episode(self) -> Tensor:
        """`[S]` int64: the episode that covers each position (0 where none does)."""
        return self._place(self._cover[1])

    @cached_property
    def inside(self) -> Tensor:
        """`[S]` bool: positions where a step exists."""
        return torch.zeros_like(self.mask).index_fill(0, self._cover[0], True) & self.mask

    @cached_property
    def offset(self) -> Tensor:
        """`[S]` int64: earlier positions of the episode, holes counted."""
        positions, owner = self._cover
        return self._place(positions - self.start[owner])

    @cached_property
    def remaining(self) -> Tensor:
        """`[S]` int64: positions of the episode after this one, holes counted."""
        positions, owner = self._cover
        return self._place(self.stop[owner] - 1 - positions)

    @cached_property
    def existing(self) -> Tensor:
        """`[K]` int64: the positions where a step exists, in order."""
        return self.inside.nonzero().squeeze(1)

    @cached_property
    def age(self) -> Tensor:
        """`[K]` int64: steps of the episode that precede each existing step in this batch."""
        return (self.time - self.time_start[self.episode])[self.existing]

    @cached_property
    def _neighbours(self) -> tuple[Tensor, Tensor]:
        """`[S]` int64 each: the episode's existing step before and after (its own at the ends)."""
        here, goes_on = self.existing, self.age[1:] > 0
        own = torch.arange(self.size, device=self.mask.device)
        before = own.index_copy(0, here[1:], torch.where(goes_on, here[:-1], here[1:]))
        after = own.index_copy(0, here[:-1], torch.where(goes_on, here[1:], here[:-1]))
        return before, after

    @cached_property
    def is_first(self) -> Tensor:
        """`[S]` bool: the first existing step of each episode."""
        return self.inside & (self.time == self.time_start[self.episode])

    @cached_property
    def is_last(self) -> Tensor:
        """`[S]` bool: the last existing step of each episode."""
        return torch.zeros_like(self.mask).index_fill(0, self._last_steps, True)

    @cached_property
    def _last_steps(self) -> Tensor:
        """Positions of the last existing steps."""
        owner = self.episode[self.existing]
        ends = torch.ones_like(owner, dtype=torch.bool)
        ends[:-1] = owner[1:] != owner[:-1]
        return self.existing[ends]

    @cached_property
    def time(self) -> Tensor:
        """`[S]` int64: time of each step in its episode (`time_start` counts, holes do not)."""
        so_far = torch.cat([self.start.new_zeros(1), self.inside.cumsum(0)])
        return self.fill(so_far[:-1] + (self.time_start - so_far[self.start])[self.episode])

    def fill(self, x: Tensor, value: float = 0) -> Tensor:
        """`x [S]` where a step exists and `value` elsewhere."""
        return torch.where(self.inside, x, value)

    def as_float64(self, name: str, x: Tensor) -> Tensor:
        """An argument `[S]` as float64, with 0 where no step exists; refuses other shapes.

        Whatever lies where no step exists then meets no product: `inf * 0` would be NaN.
        """
        contracts.require_vector(name, x, self.size, "position")
        return self.fill(x.double())

    def rows_as_float64(self, name: str, x: Tensor) -> Tensor:
        """An argument `[S, A]` as float64, with 0 where no step exists; refuses other shapes."""
        contracts.require_rows(name, x, self.size)
        return torch.where(self.inside.unsqueeze(1), x.double(), 0.0)

    def episodes_as_float64(self, name: str, x: Tensor) -> Tensor:
        """An argument `[N]` as float64; refuses other shapes."""
        contracts.require_vector(name, x, len(self), "episode")
        return x.double()

    def spread(self, x: Tensor) -> Tensor:
        """Gives every step of an episode the episode's number: `[N]` to `[S]`."""
        contracts.require_vector("what is spread over the steps", x, len(self), "episode")
        return self.fill(x[self.episode])

    def total(self, x: Tensor) -> Tensor:
        """Sums over the steps of each episode: `[S]` to `[N]`; 0 for an empty episode."""
        return x.new_zeros(len(self)).index_add(0, self.episode, self.fill(x))

    def last(self, x: Tensor) -> Tensor:
        """The value at the last step of each episode: `[S]` to `[N]`; 0 for an empty episode."""
        place = self._last_steps
        return x.new_zeros(len(self)).index_add(0, self.episode[place], x[place])

    def mean(self, x: Tensor) -> Tensor:
        """Mean over all existing steps: `[S]` to a scalar; 0 where there is none."""
        return self.fill(x.double()).sum() / self.inside.sum().clamp(min=1)

    def previous(self, x: Tensor, initial: Tensor) -> Tensor:
        """The value at the step before `[S]`, and `initial [N]` at an episode's first step."""
        return self.fill(torch.where(self.is_first, initial[self.episode], x[self._neighbours[0]]))

    def next(self, x: Tensor, final: Tensor) -> Tensor:
        """The value at the next step `[S]`, and `final [N]` after an episode's last step."""
        return self.fill(torch.where(self.is_last, final[self.episode], x[self._neighbours[1]]))
