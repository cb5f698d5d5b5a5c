"""What changes while it is watched: redrawn on a terminal, plain lines where there is none."""

import math
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reweigh.report.wording import encodable, print_plainly

WIDEST = 110
"""Columns used at most: beyond it the eye loses the row."""

Row = tuple[str, str | Text, str, str]
"""A name, its graphic, its value now, and a word on it."""


class LiveDisplay:
    """Shows one state after another: `with LiveDisplay(...) as display: display.redraw(...)`.

    On a terminal it redraws itself; elsewhere it prints a line for each state, at most one a
    second, and the last one always.

    Args:
        console: Where to show it. Its encoding decides whether blocks or ASCII are drawn.
        title: What happens.
        place: Where, such as a folder.
        begun: The plain line before the first state.
        waiting: What a terminal shows before the first state.
    """

    def __init__(self, console: Console, *, title: str, place: str, begun: str, waiting: str):
        self._console = console
        self._heading = Text("\n", overflow="fold")
        self._heading.append(title, style="bold")
        self._heading.append(f"\n{encodable(place, console)}\n", "dim")
        self._begun = begun
        self._waiting = Text(waiting, style="dim")
        # Not `console.is_terminal`: FORCE_COLOR makes that true of a file.
        self._live = (
            Live(console=console, auto_refresh=False)
            if console.file.isatty() and not console.is_dumb_terminal
            else None
        )
        self._printed_at = -math.inf
        self._unprinted: str | None = None

    def __enter__(self) -> Self:
        if self._live is None:
            self.say(self._begun)
        else:
            self._live.start()
            self._live.update(Group(self._heading, self._waiting), refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._unprinted is not None:
            self.say(self._unprinted)

    def redraw(
        self, rows: "Callable[[Graphics], Iterable[Row]]", line: str, seconds: float
    ) -> None:
        """Shows a state.

        Args:
            rows: What a terminal shows, a row for each thing worth watching.
            line: What is printed elsewhere.
            seconds: The time of the state, since any moment.
        """
        if self._live is not None:
            graphics = Graphics.of(self._console)
            drawing = Group(self._heading, graphics.dashboard(rows(graphics)))
            self._live.update(drawing, refresh=True)
        elif seconds - self._printed_at >= 1:
            self.say(line)
            self._printed_at, self._unprinted = seconds, None
        else:
            self._unprinted = line

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        print_plainly(line, self._console)


class Graphics(NamedTuple):
    """What can be drawn within a row of a console."""

    width: int
    ascii_only: bool = False

    @classmethod
    def of(cls, console: Console) -> Self:
        """Graphics that leave room for words; in ASCII where the encoding lacks blocks."""
        return cls(max(10, min(console.width, WIDEST) - 56), console.options.ascii_only)

    def curve(self, values: Iterable[float], *, top: float = -math.inf) -> str:
        """Finite values as a row of blocks; the highest block is `top` or the largest value."""
        blocks = "_.:-=+*#" if self.ascii_only else "▁▂▃▄▅▆▇█"
        values = [x for x in values if math.isfinite(x)]
        columns = min(self.width, len(values))
        means = []
        for i in range(columns):
            part = values[i * len(values) // columns : (i + 1) * len(values) // columns]
            means.append(sum(part) / len(part))
        low, high = min(means, default=0.0), max(means, default=0.0)
        high = max(high, top)
        scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
        return "".join(blocks[round((value - low) * scale)] for value in means)

    def bar(self, share: float) -> str:
        """A share from 0 to 1 as a bar."""
        full, empty = ("#", ".") if self.ascii_only else ("█", "░")
        filled = round(min(max(share, 0.0), 1.0) * self.width)
        return full * filled + empty * (self.width - filled)

    def ess(self, share: float, *, least: float) -> Text:
        """The bar of an effective sample size: red below the least wanted, yellow below half."""
        style = "red" if share < least else "yellow" if share < 0.5 else "green"
        return Text(self.bar(share), style=style)

    def dashboard(self, rows: Iterable[Row]) -> Table:
        """A table with one row for each thing worth watching."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(style="blue", no_wrap=True, width=self.width)
        table.add_column(style="bold", overflow="fold")
        table.add_column(style="dim", overflow="fold")
        for row in rows:
            table.add_row(*row)
        return table
