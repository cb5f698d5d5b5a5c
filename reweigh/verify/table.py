"""A verification for people to read."""

from itertools import groupby
from operator import attrgetter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reweigh.verify.check import TOLERANCE, WRONGLY_DECLARED, Row

RECIPE = ("expectation", "on-policy", "value", "identity", "formula")
GOLDEN = ("value", "gradient", "coefficients", "expectation")


def print_table(rows: list[Row], console: Console) -> None:
    """Prints a line for each recipe and golden estimator, and a sentence that sums them up."""
    recipes = [row for row in rows if row.is_recipe]
    wrong = [row for row in rows if row.problem == WRONGLY_DECLARED]
    if recipes:
        _print(recipes, "recipe, relative error of", RECIPE, "declared expectation", console)
        console.print()
    golden = [row for row in rows if not (row.is_recipe or row in wrong)]
    _print(golden, "golden estimator, relative error of", GOLDEN, "expectation", console)
    built = [row for row in rows if row.built and row not in wrong]
    failed = [row for row in built if not row.passed]
    worst = max((error for row in built for error in row.errors.values()), default=0.0)
    missing = sum(not row.built for row in golden)
    console.print(
        f"{len(built)} checks, {len(failed)} failed (tolerance {TOLERANCE:g}, worst error "
        f"{worst:.0e}); {missing} not built. Of {len(wrong)} declarations that are wrong, "
        f"{sum(row.passed for row in wrong)} were refused.",
        style="bold green" if all(row.passed for row in rows) else "bold red",
    )
    for row in failed:
        words = [f"{k} off by {e:.1e}" for k, e in row.errors.items() if e > TOLERANCE]
        words += [f"{x}, which is not declared" for x in row.undeclared]
        console.print(f"  {row.problem}, {row.estimator}: {'; '.join(words)}", style="red")
    for row in wrong:
        if not row.passed:
            console.print(f"  accepted, but wrong: {row.estimator}", style="red")


def _print(
    rows: list[Row], title: str, quantities: tuple[str, ...], declared: str, console: Console
) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column(title, no_wrap=True)
    for quantity in quantities:
        table.add_column(quantity, justify="right", no_wrap=True)
    table.add_column(declared)
    for problem, members in groupby(rows, key=attrgetter("problem")):
        table.add_row(Text(problem, style="bold"))
        for row in members:
            cells = [_cell(row, quantity) for quantity in quantities]
            words = Text(row.declared) if row.built else Text("not built", style="dim")
            style = "" if row.passed else "bold red"
            table.add_row(Text(f"  {row.estimator}", style=style), *cells, words)
    console.print(table)


def _cell(row: Row, quantity: str) -> Text:
    """The error; of a biased recipe, that its expectation is none of the gradients."""
    if quantity in row.none_of:
        equals = [x for x in row.undeclared if x.startswith(quantity)]
        words = (
            f"{len(equals)} of {row.none_of[quantity]}"
            if equals
            else f"none of {row.none_of[quantity]}"
        )
        return Text(words, style="bold red" if equals else "green")
    if quantity not in row.errors:
        return Text("")
    error = row.errors[quantity]
    return Text(f"{error:.0e}", style="green" if error <= TOLERANCE else "bold red")
