"""What a log holds, on the terminal and as JSON."""

import math
from collections.abc import Iterator
from dataclasses import asdict, astuple
from typing import Any

from rich.console import Console
from rich.table import Table

from reweigh.core.diagnostics import WeightReading
from reweigh.data.schema import MISSING, RECORDED, ArraySpec
from reweigh.evaluation.inspection import Age, Inspection
from reweigh.report.wording import (
    GAP,
    as_json,
    cells,
    counted,
    number,
    print_list,
    print_table,
    say,
    tail,
    unfinished_note,
)

VERSIONS = 12
"""Rows of the table of policies, at most: beyond it, policies at equal distances are shown."""

_LISTED = 4


def print_inspection(inspection: Inspection, console: Console, *, log: str) -> None:
    """Prints what a log holds, for people to read.

    Args:
        inspection: The log's contents.
        console: Where to print.
        log: What to call the log.
    """
    say(f"{log}, of {inspection.schema.environment}", console, "bold")
    facts = Table.grid(padding=(0, GAP, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, fact in _facts(inspection).items():
        facts.add_row(*cells((f"  {name}", fact), console))
    console.print(facts)
    console.print()
    spreads = {"return": inspection.returns, "steps": inspection.lengths}
    rows = [(name, *map(number, astuple(s))) for name, s in spreads.items() if s is not None]
    if rows:
        heads = ("whole episodes", "mean", "SD", "lowest", "25%", "median", "75%", "highest")
        print_table(heads, rows, console)
    if inspection.age is not None:
        print_table(
            ("weights of the policy", "weights", "ESS", "share", "k-hat", "mean"),
            _age_rows(inspection.age),
            console,
        )
        say(
            "ESS: as many weights of the policy's own would be as good. k-hat: how heavy the tail "
            f"of the weights is; up to {inspection.age.steps.k_hat_threshold:.2f} for all steps "
            "their mean is reliable.\n",
            console,
            "dim",
        )
    print_list("To be known:", [("-", note) for note in notes(inspection)], console)


def inspection_json(inspection: Inspection) -> str:
    """What a log holds as strict JSON; NaN and the infinities are null."""
    content = {**asdict(inspection), "notes": list(notes(inspection))}
    if (age := inspection.age) is not None:
        content["age"] = {
            "steps": _reading(age.steps),
            "steps_by_version": {v: _reading(r) for v, r in age.steps_by_version.items()},
            "episodes": _reading(age.episodes),
        }
    return as_json(content)


def notes(inspection: Inspection) -> Iterator[str]:
    """What the log lacks, and what to do about it."""
    if inspection.schema.behaviour == MISSING:
        yield (
            "The behaviour's log-probabilities are missing, and without them nothing can be "
            "weighed: `reweigh import LOG NEW_LOG --estimate-behaviour` estimates them."
        )
    elif inspection.schema.estimated:
        yield "Weights are only as good as the estimated log-probabilities."
    if inspection.unfinished:
        left_out = unfinished_note(
            inspection.unfinished, inspection.unfinished_steps, inspection.episodes
        )
        yield f"{left_out} of the table of whole episodes."
    if inspection.without_start:
        yield (
            f"The first steps of {inspection.without_start:,} of "
            f"{counted(inspection.episodes, 'episode')} are missing."
        )


def _facts(inspection: Inspection) -> dict[str, str]:
    schema, versions = inspection.schema, inspection.steps_by_version
    ends = {
        "terminated": inspection.terminated,
        "truncated": inspection.truncated,
        "without an end": inspection.unfinished,
    }
    policies = ", ".join(f"version {v} ({counted(n, 'step')})" for v, n in versions.items())
    if len(versions) > _LISTED:
        sizes = sorted({min(versions.values()), max(versions.values())})
        policies = (
            f"{len(versions):,}, versions {min(versions)} to {max(versions)}, "
            f"{' to '.join(f'{steps:,}' for steps in sizes)} steps each"
        )
    recorded = {RECORDED: "log-probabilities recorded", MISSING: "log-probabilities missing"}
    return {
        "steps": f"{inspection.steps:,} in {counted(inspection.episodes, 'episode')}",
        "episodes": ", ".join(f"{count:,} {how}" for how, count in ends.items()),
        "observations": _space(schema.observation),
        "actions": _space(schema.action),
        "policies": policies or "none",
        "behaviour": recorded.get(schema.behaviour, f"log-probabilities {schema.behaviour}"),
    }


def _space(spec: ArraySpec) -> str:
    return f"{spec}, {' x '.join(map(str, spec.choices))} choices" if spec.choices else str(spec)


def _age_rows(age: Age) -> Iterator[tuple[str, ...]]:
    """A row for some of the policies, and for all steps and whole episodes."""
    versions = list(age.steps_by_version.items())
    rows = min(VERSIONS, len(versions))
    for i in range(rows):
        version, reading = versions[round(i * (len(versions) - 1) / max(rows - 1, 1))]
        yield f"steps of policy {version}", *_figures(reading)
    yield "all steps", *_figures(age.steps)
    yield "whole episodes", *_figures(age.episodes)


def _reading(reading: WeightReading) -> dict[str, Any]:
    return {**asdict(reading), "ess_share": reading.ess_share}


def _figures(reading: WeightReading) -> tuple[str, ...]:
    share = reading.ess_share if reading.sample_size else math.nan
    return (
        f"{reading.sample_size:,}",
        number(reading.effective_sample_size),
        "-" if math.isnan(share) else f"{share:.1%}",
        tail(reading.k_hat),
        f"{reading.mean:.3g}",
    )
