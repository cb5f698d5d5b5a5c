"""Which episodes are learnt from, which choose, which test: decided before any is looked at."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from reweigh.data.batch import Batch
from reweigh.data.episodes import Chosen, Episodes, Shares

AT_ONCE = 500_000
"""Steps of the log that are read at once."""
HELD = 2_000_000
"""Steps up to which a log is held in memory; a larger one is read again in each pass."""


@dataclass(frozen=True, eq=False)
class Part(Chosen):
    """Some of a log's episodes, as often as they are asked for."""

    at_once: int = AT_ONCE
    """Steps of the log that are read at once."""
    held: list[Batch] = field(default_factory=list)
    """All batches, if they are held in memory."""

    def batches(self) -> Iterator[Batch]:
        """The chosen episodes of each `at_once` steps of the log."""
        if self.held:
            return iter(self.held)
        return map(Batch.of, self.stream_episodes(max_steps=self.at_once))


@dataclass(frozen=True, eq=False)
class Division:
    """A log's episodes in three parts."""

    training: Part
    validation: Part
    test: Part

    @classmethod
    def of(
        cls,
        source: Episodes,
        shares: Shares,
        *,
        steps: int,
        at_once: int = AT_ONCE,
        held: int = HELD,
    ) -> "Division":
        """The three parts of a log.

        Args:
            source: Whole episodes.
            shares: How they are divided.
            steps: How many steps there are.
            at_once: Steps of the log that are read at once.
            held: Steps up to which a log is held in memory, which changes no number.
        """
        parts = [
            Part(source, lambda t, number=number: shares.part_of(t.episode) == number, at_once)
            for number in range(3)
        ]
        if steps <= held:
            for part in parts:
                part.held.extend(part.batches())
        return cls(*parts)


def minibatches(batch: Batch, count: int, generator: torch.Generator) -> Iterator[Batch]:
    """The episodes of a batch in random order, in as many minibatches, none of them empty."""
    order = torch.randperm(len(batch.segments), generator=generator)
    for episodes in order.tensor_split(min(count, len(order))):
        yield batch.select(episodes)
