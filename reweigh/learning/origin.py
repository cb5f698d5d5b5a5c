"""Where a policy to begin with comes from: may it have seen the rewards of the test episodes?

A policy that was trained on episodes of the log takes the actions that were lucky in them, those
that are to test it included, and a test would show an improvement that is chance.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from torch import nn

from reweigh.data.batch import Batch
from reweigh.evaluation.policies import log_prob
from reweigh.learning.division import Division

_SAME = 1e-3
"""Nats per step up to which log-probabilities are of one policy: float32, or a few decimals."""
_ROUNDING = 1e-5


class Origin(Enum):
    """What is known of the policy to begin with."""

    FIRST = "first"
    """It sampled the log, or the oldest part of it: it has seen nothing of what came of it."""
    UNKNOWN = "unknown"
    """Nothing: it may have seen the rewards of the log's episodes."""


def versions_of(division: Division) -> list[int]:
    """The versions of the policies that sampled a log, oldest first."""
    found: set[int] = set()
    for batch in _batches(division):
        found.update(batch.policy_version.unique().tolist())
    return sorted(found)


def origin_of(policy: nn.Module, division: Division) -> Origin:
    """Which part of the log a policy sampled, by the log-probabilities that are recorded there.

    Of the test episodes it takes observations and actions alone, no rewards.

    Raises:
        ValueError: It sampled a later part, and may have been trained on what came before; it is of
            another space, or gives NaN.
    """
    totals: dict[int, float] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    for batch in _batches(division):
        with saying_what_is_not_a_number():
            apart = (log_prob(policy, batch) - batch.log_prob_behaviour).abs()
        for version in batch.policy_version.unique().tolist():
            mine = batch.policy_version == version
            totals[version] += float(apart[mine].sum())
            counts[version] += int(mine.sum())
    distances = {version: totals[version] / counts[version] for version in sorted(totals)}
    closest, oldest = min(distances, key=lambda v: distances[v]), min(distances)
    if not distances[closest] <= _SAME:
        return Origin.UNKNOWN
    # Versions that differ by rounding alone are one policy.
    if distances[oldest] <= 2 * distances[closest] + _ROUNDING:
        return Origin.FIRST
    raise ValueError(
        f"the policy to begin with is the one that sampled the steps of version {closest} in the "
        f"log, and may have been trained on the log's episodes of version {oldest}, so that a test "
        f"on them would prove nothing: begin with version {oldest}, or learn from a log that holds "
        f"the episodes of version {closest} alone"
    )


@contextmanager
def saying_what_is_not_a_number() -> Iterator[None]:
    """Say of a policy whose distribution refuses its numbers that this is what is wrong."""
    try:
        yield
    except ValueError as error:
        if "invalid values" not in str(error.__cause__):
            raise
        first = " ".join(str(error.__cause__).split(", but found")[0].split())
        raise ValueError(
            "the policy gives its distribution NaN, or numbers that cannot be, for the log's "
            f"observations: {first[:200]}; it is damaged or has diverged"
        ) from error


def _batches(division: Division) -> Iterator[Batch]:
    for part in (division.training, division.validation, division.test):
        yield from part.batches()
