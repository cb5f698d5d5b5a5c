"""Commands around a run in an environment: train, resume, evaluate-run, report, verify."""

import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from reweigh.cli.folders import next_free
from reweigh.train.config import TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

    from reweigh.train.run import Run

WITHOUT_REUSE = "without-reuse"
"""Folder, inside a run, of the run that it is compared with."""


def train(
    config: OmitArgPrefixes[TrainConfig], out: Path | None = None, compare: bool = False
) -> int:
    """Trains a policy in a Gymnasium environment, reusing the steps that older policies took.

    Args:
        config: What to train and how.
        out: Folder of the run; by default the next free one under runs/.
        compare: Also train the same learner without reuse, and draw both curves.
    """
    from reweigh.train.start import new_run

    path = out or next_free(Path("runs"), config.environment)
    runs = [new_run(path, config)]
    if compare:
        runs.append(new_run(path / WITHOUT_REUSE, replace(config, reuse=1)))
    return _drive(runs)


def resume(
    run: Positional[Path],
    steps: int | None = None,
    minutes: float | None = None,
    threshold: float | None = None,
) -> int:
    """Goes on with a run exactly where it stopped.

    Args:
        run: Folder of the run.
        steps: A new limit of environment steps, those of the run so far included.
        minutes: A new limit of minutes, those of the run so far included.
        threshold: A new threshold for a run that has reached its own; inf for none.
    """
    from reweigh.train.run import Run

    paths = [p for p in (run, run / WITHOUT_REUSE) if p == run or p.exists()]
    runs = [Run.open(path) for path in paths]
    for each in runs:
        each.extend(steps=steps, minutes=minutes, threshold=threshold)
    return _drive(runs)


def evaluate_run(
    run: Positional[Path], episodes: int = 100, version: int | None = None, seed: int = 1
) -> int:
    """Plays a run's policy greedily and prints its returns.

    Args:
        run: Folder of the run.
        episodes: How many episodes.
        version: Which of the run's policies; the newest by default.
        seed: Seed of the episodes.
    """
    from reweigh.acting.evaluate import evaluate
    from reweigh.train.run import Run

    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; it must be at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0")
    opened = Run.open(run)
    policy = opened.load_policy(version)
    returns = evaluate(
        policy,
        opened.config.environment,
        episodes=episodes,
        seed=seed,
        memory=opened.config.memory,
    )
    error = returns.std(ddof=1) / episodes**0.5 if episodes > 1 else float("nan")
    print(
        f"{opened.config.environment}: mean return {returns.mean():.2f} ± {error:.2f} "
        f"(standard error) over {episodes} episodes of the greedy policy; "
        f"lowest {returns.min():.2f}, highest {returns.max():.2f}"
    )
    return 0


def report(run: Positional[Path]) -> int:
    """Writes the page of a run again.

    Args:
        run: Folder of the run.
    """
    from reweigh.report.run_page import write_report
    from reweigh.train.run import Run

    compared = run / WITHOUT_REUSE
    other = Run.open(compared) if compared.exists() else None
    print(write_report(Run.open(run), compared=other))
    return 0


def verify(file: Positional[Path | None] = None, json: bool = False) -> int:
    """Proves this installation: every estimator against exact results.

    Args:
        file: A golden file; by default the one that ships with the package.
        json: Print JSON instead of a table.
    """
    import torch
    from rich.console import Console

    from reweigh import verify as checks

    torch.set_num_threads(1)  # many small tensors: a second thread only waits
    rows = checks.verify(checks.load(file))
    if json:
        print(dumps([asdict(row) for row in rows], indent=2))
    else:
        checks.print_table(rows, Console())
    return 0 if all(row.passed for row in rows) else 1


def _drive(runs: "Sequence[Run]") -> int:
    """Goes on with each run, shows it, and leaves a summary and a page behind."""
    from rich.console import Console

    from reweigh.report.run_page import write_report
    from reweigh.report.summary import print_summary, summarise, write_summary
    from reweigh.report.wording import callable_here, print_plainly
    from reweigh.train.loop import finished

    console = Console()
    go_on = callable_here(f"reweigh resume {shlex.quote(str(runs[0].path))}")
    interrupted = False
    try:
        for run in runs:
            _watch(run, console)
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:
        raise OSError(f"{error}; nothing is lost: mend it, then go on by `{go_on}`") from error
    except ValueError as error:
        kept = any(run.log.summary().steps for run in runs)
        raise ValueError(f"{error}; go on by `{go_on}`" if kept else str(error)) from error
    summaries = []
    for run in runs:
        saved = run.load_checkpoint()
        if saved is None or saved[0].steps == 0:  # interrupted before there was anything to tell
            break
        summaries.append(summarise(run, finished(run.config, saved[0]) or "interrupt"))
        write_summary(run, summaries[-1])
    if not summaries:
        print_plainly(f"Nothing was learnt yet. Begin by `{go_on}`", console)
        return 130
    compared = len(summaries) > 1
    write_report(runs[0], compared=runs[1] if compared else None)
    print_summary(runs[0], summaries[0], summaries[1] if compared else None, console)
    return 130 if interrupted else 0


def _watch(run: "Run", console: "Console") -> None:
    """Trains to the end and shows every iteration."""
    from reweigh.report.tensorboard import TensorBoardWriter
    from reweigh.report.training_display import TrainingDisplay
    from reweigh.train.loop import train as iterations
    from reweigh.train.start import collect_here

    collect = collect_here(run)
    board = TensorBoardWriter(run.path / "tensorboard")
    with closing(board), TrainingDisplay(run, console) as display:
        for progress in iterations(run, collect):
            display.show(progress)
            board.write(progress)
