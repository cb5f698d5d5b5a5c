"""What changes while it is watched: redrawn on a terminal, plain lines where there is none."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reweigh.report.wording import print_plainly

WIDEST = 110
"""Columns used at most: beyond it the eye loses the row."""

Row = tuple[str, str | Text, str, str]
"""A name, its graphic, its value now, and a word on it."""
Graphic = Callable[..., str]


class Screen:
    """Shows one state after another: `with Screen(console) as screen: screen.show(...)`.

    On a terminal it redraws itself; elsewhere it prints a line for each state, at most one a
    second, and the last one always.
    """

    def __init__(self, console: Console):
        self._console = console
        # Not `console.is_terminal`: FORCE_COLOR makes that true of a file.
        self._live = (
            Live(console=console, auto_refresh=False)
            if console.file.isatty() and not console.is_dumb_terminal
            else None
        )
        self._printed_at = float("-inf")
        self._unprinted: str | None = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
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

    def begin(self, drawing: RenderableType, line: str) -> None:
        """Show what there is before the first state."""
        if self._live is None:
            self.say(line)
        else:
            self._live.update(drawing, refresh=True)

    def show(self, draw: Callable[[], RenderableType], line: str, seconds: float) -> None:
        """Show a state.

        Args:
            draw: Makes what a terminal shows.
            line: What is printed where there is none.
            seconds: When, since any moment.
        """
        if self._live is not None:
            self._live.update(draw(), refresh=True)
        elif seconds - self._printed_at >= 1:
            self.say(line)
            self._printed_at, self._unprinted = seconds, None
        else:
            self._unprinted = line

    def say(self, line: str) -> None:
        """Print a line that stays."""
        print_plainly(line, self._console)


class Graphics(NamedTuple):
    """What can be drawn within a row of a console."""

    width: int
    curve: Graphic
    """`sparkline` of that width."""
    share: Graphic
    """`bar` of that width."""

    @classmethod
    def of(cls, console: Console) -> "Graphics":
        """As wide as leaves room for words, and in ASCII where the console has nothing else."""
        width = max(10, min(console.width, WIDEST) - 56)
        ascii_only = console.options.ascii_only
        return cls(
            width,
            partial(sparkline, width=width, ascii_only=ascii_only),
            partial(bar, width=width, ascii_only=ascii_only),
        )


def dashboard(rows: Iterable[Row], graphics: Graphics) -> Table:
    """Lay out one row for each thing worth watching."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="blue", no_wrap=True, width=graphics.width)
    table.add_column(style="bold", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool, top: float) -> str:
    """Draw values as a row of at most `width` blocks; the highest block is `top` or the largest."""
    blocks = "_.:-=+*#" if ascii_only else "▁▂▃▄▅▆▇█"
    columns = min(width, len(values))
    means = []
    for i in range(columns):
        part = values[i * len(values) // columns : (i + 1) * len(values) // columns]
        means.append(sum(part) / len(part))
    low, high = min(means, default=0.0), max(means, default=0.0)
    high = max(high, top)
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value - low) * scale)] for value in means)


def bar(share: float, width: int, *, ascii_only: bool) -> str:
    """Draw a share from 0 to 1 as a bar of `width` columns."""
    full, empty = ("#", ".") if ascii_only else ("█", "░")
    filled = round(min(max(share, 0.0), 1.0) * width)
    return full * filled + empty * (width - filled)


def ess_bar(share: float, graphics: Graphics, *, least: float) -> Text:
    """Draw an effective sample size, red below the least that is wanted and yellow below half."""
    style = "red" if share < least else "yellow" if share < 0.5 else "green"
    return Text(graphics.share(share), style=style)
