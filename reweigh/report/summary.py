"""The outcome of a run: summary.json, and the lines a person reads at the end."""

import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from reweigh.data.files import write_whole
from reweigh.report.wording import (
    callable_here,
    duration,
    number,
    print_places,
    print_plainly,
    times,
)
from reweigh.train.run import Checkpoint, Run


def summarise(run: Run, ended_by: str) -> dict[str, Any]:
    """The outcome of a run as JSON holds it.

    Args:
        run: A run, finished or not.
        ended_by: The option that ended it, as `train.loop.finished` returns it, or "interrupt".

    Returns:
        What was trained and with which versions; `steps`, `episodes`, `seconds` and `cpu_seconds`
        in all; `uses`, how many times a step has been in a minibatch, on average;
        `steps_to_threshold`, the steps at the check that confirmed the threshold, or None;
        `final_return`, the last check's mean return of the greedy policy over
        `final_return_episodes` uncounted episodes, or None if it was never checked.
    """
    saved = run.load_checkpoint()
    checkpoint = Checkpoint() if saved is None else saved[0]
    checked = [p for p in run.metrics() if p.evaluation_return is not None]
    config = run.config
    return {
        "environment": config.environment,
        "seed": config.seed,
        "reuse": config.reuse,
        "steps": checkpoint.steps,
        "episodes": checkpoint.episodes,
        "seconds": checkpoint.seconds,
        "cpu_seconds": checkpoint.cpu_seconds,
        "uses": checkpoint.steps_used / checkpoint.steps if checkpoint.steps else 0.0,
        "threshold": config.threshold,
        "steps_to_threshold": checkpoint.steps_to_threshold,
        "final_return": checked[-1].evaluation_return if checked else None,
        "final_return_episodes": checked[-1].evaluation_episodes if checked else 0,
        "ended_by": ended_by,
        "reweigh": version("reweigh"),
        "torch": version("torch"),
        "gymnasium": version("gymnasium"),
    }


def write_summary(run: Run, summary: dict[str, Any]) -> None:
    """Writes summary.json into the run folder."""
    write_whole(run.path / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())


def result(summary: dict[str, Any]) -> str:
    """How far a run came in one clause, as in "475 reached after 1,408 steps"."""
    steps = f"{summary['steps']:,} steps"
    if summary["steps_to_threshold"] is not None:
        return (
            f"{number(summary['threshold'])} reached after {summary['steps_to_threshold']:,} steps"
        )
    if summary["threshold"] is not None:
        return f"{number(summary['threshold'])} not reached in {steps}"
    if summary["final_return"] is not None:
        return f"return {number(summary['final_return'])} after {steps}"
    return f"{steps} taken"


def outcome(summary: dict[str, Any], compared: dict[str, Any] | None) -> str:
    """What came out in one or two sentences, beside the run without reuse if there is one."""
    text = f"{result(summary)}; each step was used {times(summary['uses'])}."
    if compared is not None:
        text += f" Without reuse: {result(compared)}."
    return text[0].upper() + text[1:]


def next_commands(summary: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    """What a person may want next and the command that does it."""
    run = shlex.quote(str(path))
    commands = [
        ("evaluate the policy", f"reweigh evaluate-run {run} --episodes 100"),
        ("all the curves", f"tensorboard --logdir {shlex.quote(str(path / 'tensorboard'))}"),
    ]
    if summary["ended_by"] == "interrupt":
        commands.append(("go on", f"reweigh resume {run}"))
    elif summary["ended_by"] != "threshold":
        commands.append(("train longer", f"reweigh resume {run} --steps {2 * summary['steps']}"))
    return commands


def print_summary(
    run: Run, summary: dict[str, Any], compared: dict[str, Any] | None, console: Console
) -> None:
    """Prints what came out, where it is, and what to do next.

    Args:
        run: The run.
        summary: What `summarise` says of it.
        compared: The same of the run without reuse.
        console: Where to print.
    """
    print_plainly(f"\n{summary['environment']}: {outcome(summary, compared)}", console)
    if summary["final_return"] is not None:
        episodes = f"the mean of {summary['final_return_episodes']} uncounted episodes"
        print_plainly(f"Greedy policy: {number(summary['final_return'])}, {episodes}.", console)
    print_plainly(
        f"{summary['steps']:,} steps, {summary['episodes']:,} episodes, "
        f"{duration(summary['seconds'])} "
        f"({duration(summary['cpu_seconds'])} of processor, checks aside).\n",
        console,
    )
    places = [("run", str(run.path)), ("report", str(run.path / "report.html"))]
    commands = [(what, callable_here(it)) for what, it in next_commands(summary, run.path)]
    print_places(places + commands, console)
