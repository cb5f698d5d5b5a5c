"""An evaluation on the terminal, and as JSON."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from reweigh.evaluation.estimates import LIMIT, Evaluation
from reweigh.report import evaluation_wording as said
from reweigh.report.wording import GAP, as_json, cells, print_list, say

_INTERVAL = 2
_LEAST_NAME = 20
_STYLES = {"behaviour": "", "doubted": "dim", "first": "bold", "": ""}


_Line = tuple[str, tuple[str, ...], str]
"""A name, figures, and their style."""


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Prints an evaluation: what was evaluated, each estimate, doubts, what to make of them.

    Args:
        evaluation: The estimates.
        console: Where to print. Its width decides whether an estimate takes one line or two.
    """
    say(said.title(evaluation), console, "bold")
    say(f"{said.basis(evaluation)} {said.source_of_weights(evaluation)}", console)
    console.print()
    _print_rows(list(_rows(evaluation)), console)
    console.print()
    say(f"{said.key(evaluation)}\n", console, "dim")
    doubts = [(f"[{number}]", why) for why, number in said.doubts(evaluation).items()]
    print_list(f"{said.DOUBTED}:", doubts, console)
    say(said.verdict(evaluation), console, "bold")
    console.print()
    left_out = said.left_out(evaluation).items()
    print_list(
        "Left out:", [("-", f"{', '.join(names)}: {why}") for why, names in left_out], console
    )


def evaluation_json(evaluation: Evaluation) -> str:
    """Everything about an evaluation as strict JSON.

    Beside the fields of `Evaluation` and `Estimate`: which estimate to look at first, how
    its interval lies beside the behaviour's, and the range of the histogram. Numbers that JSON does
    not have, NaN and the infinities, are null.
    """
    chosen = said.first_look(evaluation)
    content = {f.name: getattr(evaluation, f.name) for f in fields(evaluation)}
    content["estimates"] = {
        name: {**asdict(e), "believable": e.believable} for name, e in evaluation.estimates.items()
    }
    content["unfinished"] = evaluation.unfinished._asdict()
    content["weight_histogram_log10_range"] = [-LIMIT, LIMIT]
    content["look_first"] = None if chosen is None else chosen.method
    content["beside_behaviour"] = None if chosen is None else said.standing(evaluation, chosen)
    return as_json(content)


def _rows(evaluation: Evaluation) -> Iterator[_Line]:
    """The head, and a row for each estimate: the behaviour's own value first and set apart."""
    yield "estimator", tuple(said.heads(evaluation)), "bold"
    for name, figures, doubts, kind in said.rows(evaluation):
        noted = f"[{','.join(map(str, doubts))}]" if doubts else ""
        yield name, (*figures.values(), noted), _STYLES[kind]
        if kind == "behaviour" and len(evaluation.estimates) > 1:
            yield "", ("",) * (len(figures) + 1), ""


def _print_rows(rows: Sequence[_Line], console: Console) -> None:
    """Prints a line for each row, or two where the console is too narrow: the name, the figures."""
    columns = list(zip(*(figures for _, figures, _ in rows), strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    left = console.width - sum(GAP + width for width in widths)
    names = max(cell_len(name) for name, *_ in rows)
    if left >= min(names, _LEAST_NAME):
        table = _table([min(names, left), *widths], justify="left")
        for name, figures, style in rows:
            name = _folded(name, min(names, left))
            table.add_row(*cells((name, *figures), console), style=style)
        console.print(table)
        return
    # The interval is what can take several lines: it has spaces.
    words = " ".join(columns[_INTERVAL]).split()
    widths[_INTERVAL] = max(widths[_INTERVAL] + min(left, 0), *map(cell_len, words))
    for name, figures, style in rows:
        say(name, console, style)
        if name:
            table = _table(widths, justify="right")
            table.add_row(*cells(figures, console), style=style)
            console.print(Padding(table, (0, 0, 0, GAP)))


def _folded(name: str, width: int) -> str:
    """A name broken after underscores, so that its parts fit."""
    lines = [""]
    for part in re.findall("[^_]*_|[^_]+$", name):
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(lines)


def _table(widths: Sequence[int], *, justify: Literal["left", "right"]) -> Table:
    """A table without lines: its first column justified so, doubts left and numbers right."""
    table = Table.grid(padding=(0, GAP, 0, 0))
    for i, width in enumerate(widths):
        side = "left" if i == len(widths) - 1 else justify if i == 0 else "right"
        table.add_column(justify=side, width=width, overflow="fold")
    return table
