"""Commands that make logs of what others recorded, and the other way round: import, export."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from reweigh.cli.folders import open_log
from reweigh.data.importing.layout import BY_USUAL_NAMES, Layout

if TYPE_CHECKING:
    from reweigh.behaviour import Calibration
    from reweigh.data.importing.copying import BehaviourEstimator, LogProbBehaviour
    from reweigh.data.importing.write import Progress
    from reweigh.data.log import TrajectoryLog

Format = Literal["log", "minari", "parquet", "csv", "jsonl", "hdf5", "npz"]
"""`importing.READERS`."""


def import_(
    source: Positional[str],
    log: Positional[Path],
    layout: OmitArgPrefixes[Layout] = BY_USUAL_NAMES,
    format: Format | None = None,
    unfinished: Literal["refuse", "truncated", "drop", "keep"] = "refuse",
    estimate_behaviour: bool = False,
    behaviour_model: Literal["auto", "counts", "network"] = "auto",
    seed: int = 0,
) -> int:
    """Makes a log of trajectories that others recorded.

    Args:
        source: A file, a folder, or the name of a Minari dataset of this machine.
        log: Folder of the new log.
        layout: What the source's columns mean.
        format: What the source is; by default what it looks like.
        unfinished: What to do with episodes that neither terminated nor were truncated.
        estimate_behaviour: Estimate the behaviour's log-probabilities from the actions.
        behaviour_model: What is fitted then; by default counts where states are few.
        seed: Seed of that estimate.
    """
    from reweigh.data.importing import import_log, open_source
    from reweigh.data.importing.write import drop, keep, refuse, truncated

    rules = {"refuse": refuse, "truncated": truncated, "drop": drop, "keep": keep}
    calibrations: list[Calibration] = []
    estimator = _estimator(behaviour_model, seed, calibrations)
    with _bar("Importing") as progress:
        report = import_log(
            source,
            log,
            layout=layout,
            reader=partial(open_source, format=format),
            unfinished=rules[unfinished],
            estimate=estimator if estimate_behaviour else None,
            progress=progress,
        )
    print(report)
    for calibration in calibrations:
        print("\n".join(calibration.lines()))
    return 0


def export(log: Positional[Path], target: Positional[Path]) -> int:
    """Writes a log as a Parquet file or a Minari dataset; importing that gives the same log again.

    Args:
        log: Folder of the log, or of the run that has it.
        target: name.parquet for a table with a row an episode; name-v0 for a Minari dataset.
    """
    from reweigh.data.exporting import export_log

    with _bar("Exporting") as progress:
        print(export_log(open_log(log), target, progress=progress))
    return 0


def _estimator(model: str, seed: int, calibrations: "list[Calibration]") -> "BehaviourEstimator":
    """What `import_log` learns log-probabilities by; notes how far to believe them."""

    def estimator(log: "TrajectoryLog") -> "tuple[LogProbBehaviour, str]":
        from reweigh.behaviour import counts, counts_where_possible, estimate_behaviour, fit_network

        models = {"auto": counts_where_possible, "counts": counts, "network": fit_network}
        estimate = estimate_behaviour(log, model=models[model], seed=seed)
        calibrations.append(estimate.calibration)
        return estimate.log_prob_behaviour, estimate.description

    return estimator


@contextmanager
def _bar(what: str) -> "Iterator[Progress | None]":
    """A progress bar of steps on a terminal; None elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
