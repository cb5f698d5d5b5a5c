"""Sentences, lists and figures on a terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reweigh.report.wording import encodable

WIDEST = 100
"""Columns that sentences take at most: beyond it the eye loses the line."""
GAP = 2
"""Columns between figures."""


def cells(texts: Iterable[str], console: Console) -> list[Text]:
    """Return texts as they are, for the cells of a table."""
    return [Text(encodable(text, console)) for text in texts]


def say(sentence: str, console: Console, style: str = "") -> None:
    """Print sentences, at most as wide as reads well."""
    text = Text(encodable(sentence, console), style=style, overflow="fold")
    console.print(text, width=min(console.width, WIDEST), highlight=False)


def print_list(heading: str, items: Iterable[tuple[str, str]], console: Console) -> None:
    """Print a heading and marked items, if there are any."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for item in items:
        table.add_row(*cells(item, console))
    if table.row_count:
        say(heading, console)
        console.print(table, width=min(console.width, WIDEST))
        console.print()
