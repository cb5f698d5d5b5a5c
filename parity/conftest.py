"""Compares, and prints what was seen at the end: the tables of docs/parity.md."""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

TOLERANCE = 1e-5
AGREEMENTS = pytest.StashKey[dict[tuple[str, str, str], float]]()
DIFFERENCES = pytest.StashKey[dict[tuple[str, str], tuple[str, ...]]]()


def pytest_configure(config):
    config.stash[AGREEMENTS] = {}
    config.stash[DIFFERENCES] = {}


@pytest.fixture
def agree(pytestconfig) -> Callable[..., None]:
    """Require two results to be equal to 1e-5, and keep the largest difference seen.

    Differences are relative to the largest number of the result, or, for weights (`each`), every
    one to its own.
    """
    seen = pytestconfig.stash[AGREEMENTS]

    def compare(peer, function, composition, ours, theirs, *, each=False):
        ours, theirs = numbers(ours), numbers(theirs)
        assert ours.shape == theirs.shape
        assert np.isfinite(theirs).all(), f"{peer} {function} is not finite: {theirs}"
        assert ours.size > 0
        scale = np.abs(theirs) if each else np.abs(theirs).max()
        # Where theirs is 0, ours must be exactly 0.
        gap = np.abs(ours - theirs)
        difference = float(np.where(gap == 0, 0.0, gap / np.where(scale == 0, 1e-30, scale)).max())
        row = (peer, function, composition)
        seen[row] = max(seen.get(row, 0.0), difference)
        assert difference <= TOLERANCE, f"{row}: {ours} against {theirs}"

    return compare


@pytest.fixture
def differ(pytestconfig) -> Callable[[str, str, str, str, str], None]:
    """Record where a peer gives another number; what it gives, the test has asserted."""
    seen = pytestconfig.stash[DIFFERENCES]

    def record(peer, what, theirs, ours, right):
        seen[peer, what] = (theirs, ours, right)

    return record


def numbers(x) -> np.ndarray:
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, dtype=np.float64)


def pytest_terminal_summary(terminalreporter, config):
    line = terminalreporter.write_line
    named = {peer: f"{peer} {version(peer)}" for peer, *_ in config.stash[AGREEMENTS]}
    line("")
    line("| peer | function | in reweigh | largest relative difference |")
    line("| --- | --- | --- | --- |")
    for (peer, function, composition), seen in config.stash[AGREEMENTS].items():
        line(f"| {named[peer]} | {function} | `{composition}` | {f'{seen:.0e}' if seen else 0} |")
    line("")
    line("| peer | where it differs | its number | reweigh's | right |")
    line("| --- | --- | --- | --- | --- |")
    for (peer, what), columns in config.stash[DIFFERENCES].items():
        line(f"| {peer} {version(peer)} | {what} | {' | '.join(columns)} |")
