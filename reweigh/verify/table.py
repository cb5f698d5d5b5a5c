"""A verification for people to read."""

from itertools import groupby
from operator import attrgetter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reweigh.verify.check import TOLERANCE, Row

_QUANTITIES = ("value", "gradient", "coefficients", "expectation")


def print_table(rows: list[Row], console: Console) -> None:
    """Prints a line for each row, under its problem, and a sentence that sums them up."""
    table = Table(box=None, header_style="bold")
    table.add_column("relative error of", no_wrap=True)
    for quantity in _QUANTITIES:
        table.add_column(quantity, justify="right", no_wrap=True)
    table.add_column("unbiased for")
    for problem, members in groupby(rows, key=attrgetter("problem")):
        table.add_row(Text(problem, style="bold"))
        for row in members:
            cells = [_cell(row.errors.get(quantity)) for quantity in _QUANTITIES]
            target = Text(row.target) if row.built else Text("not built", style="dim")
            table.add_row(f"  {row.estimator}", *cells, target)
    console.print(table)
    built = [row for row in rows if row.built]
    failed = [row for row in built if not row.passed]
    worst = max((max(row.errors.values()) for row in built), default=0.0)
    console.print(
        f"{len(built)} checks, {len(failed)} beyond a relative error of {TOLERANCE:g}, "
        f"worst {worst:.0e}; {len(rows) - len(built)} not built.",
        style="bold red" if failed else "bold green",
    )


def _cell(error: float | None) -> Text:
    if error is None:
        return Text("")
    return Text(f"{error:.0e}", style="green" if error <= TOLERANCE else "bold red")
