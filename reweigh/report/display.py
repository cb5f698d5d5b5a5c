"""The live display of a training run; plain lines where there is no terminal."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reweigh.report.wording import duration, encodable, number, print_plainly, times
from reweigh.train.config import TrainConfig
from reweigh.train.progress import Progress
from reweigh.train.run import Run

WIDEST = 110
"""Columns used at most: beyond it the eye loses the row."""

Row = tuple[str, str | Text, str, str]
"""A name, its graphic, its value now, and a word on it."""
Graphic = Callable[..., str]

IMPROVEMENT_ENDED = {"epochs": "all passes done", "kl": "KL limit", "ess": "ESS limit"}


class LiveDisplay:
    """Shows how a run goes: `with LiveDisplay(run, console) as display: display.show(progress)`.

    On a terminal it redraws itself once an iteration; elsewhere it prints a line an iteration, at
    most one a second. A resumed run's earlier iterations are read from its metrics.

    Args:
        run: The run, which is titled by its environment and by how many policies it reuses.
        console: Where to show it. Its encoding decides whether blocks or ASCII are drawn.
    """

    def __init__(self, run: Run, console: Console):
        self._run = run
        self._console = console
        self._history: list[Progress] = []
        # Not `console.is_terminal`: FORCE_COLOR makes that true of a file.
        self._live = (
            Live(console=console, auto_refresh=False)
            if console.file.isatty() and not console.is_dumb_terminal
            else None
        )
        self._printed_at = float("-inf")
        self._unprinted: Progress | None = None

    def __enter__(self) -> Self:
        if self._live is None:
            self._say(f"{title(self._run.config)}, in {self._run.path}")
        else:
            self._live.start()
            self._live.update(
                Group(self._heading(), Text("taking the first steps", style="dim")), refresh=True
            )
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
            self._say(line(self._unprinted, self._run.config))

    def show(self, progress: Progress) -> None:
        """Show one iteration."""
        if not self._history:
            self._history = [p for p in self._run.metrics() if p.iteration < progress.iteration]
        self._history.append(progress)
        for dropped in progress.dropped:
            self._say(f"dropped an episode: {dropped}")
        if self._live is not None:
            dashboard = draw(self._history, self._run.config, self._console)
            self._live.update(Group(self._heading(), dashboard), refresh=True)
        elif progress.seconds - self._printed_at >= 1:
            self._say(line(progress, self._run.config))
            self._printed_at, self._unprinted = progress.seconds, None
        else:
            self._unprinted = progress

    def _heading(self) -> Text:
        path = encodable(str(self._run.path), self._console)
        heading = Text("\n", overflow="fold")
        return heading.append(title(self._run.config), style="bold").append(f"\n{path}\n", "dim")

    def _say(self, text: str) -> None:
        print_plainly(text, self._console)


def title(config: TrainConfig) -> str:
    """Name what is trained and how far back it reuses steps."""
    if config.reuse == 1:
        return f"{config.environment} without reuse"
    return f"{config.environment} reusing the steps of {config.reuse} policies"


def line(progress: Progress, config: TrainConfig) -> str:
    """Write one iteration as a plain line."""
    parts = [f"steps {progress.steps:,}/{config.steps:,}"]
    if progress.evaluation_return is not None:
        parts.append(f"return {number(progress.evaluation_return)}")
    if progress.training_return is not None:
        parts.append(f"training {number(progress.training_return)}")
    parts += [
        f"ESS {progress.ess:.0%}",
        f"max weight {number(progress.max_weight)}",
        f"KL {progress.kl:.3f}",
        f"entropy {progress.entropy:.2f}",
        f"epochs {progress.epochs} ({progress.ended_by})",
        f"uses {progress.uses:.0f}",
    ]
    return "  ".join(parts)


def time_left(history: Sequence[Progress], config: TrainConfig) -> float:
    """Return the seconds until the steps or the minutes run out, at the pace of the last ten."""
    now, then = history[-1], history[max(0, len(history) - 11)]
    pace = now.seconds / now.steps
    if now.steps > then.steps:
        pace = (now.seconds - then.seconds) / (now.steps - then.steps)
    left = max(0, config.steps - now.steps) * pace
    if config.minutes is not None:
        left = min(left, max(0.0, 60 * config.minutes - now.seconds))
    return left


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


def draw(history: Sequence[Progress], config: TrainConfig, console: Console) -> Table:
    """Draw where a run stands: how far it is, and one row for each thing worth watching."""
    ascii_only = console.options.ascii_only
    width = max(10, min(console.width, WIDEST) - 56)
    curve = partial(sparkline, width=width, ascii_only=ascii_only)
    share = partial(bar, width=width, ascii_only=ascii_only)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="blue", no_wrap=True, width=width)
    table.add_column(style="bold", overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for row in (
        _steps_row(history, config, share),
        *_return_rows(history, config, curve),
        *_weight_rows(history, config, curve, share),
    ):
        table.add_row(*row)
    return table


def _steps_row(history: Sequence[Progress], config: TrainConfig, share: Graphic) -> Row:
    now = history[-1]
    left = f"{duration(time_left(history, config))} left"
    if now.steps >= config.steps:
        left = "all taken"
    elif config.threshold is not None:
        left = f"at most {left}"
    return "steps", share(now.steps / config.steps), f"{now.steps:,} of {config.steps:,}", left


def _return_rows(history: Sequence[Progress], config: TrainConfig, curve: Graphic) -> Iterator[Row]:
    """Yield the greedy policy's returns and the training episodes', as far as there are any."""
    top = float("-inf") if config.threshold is None else config.threshold
    goal = "" if config.threshold is None else f" of {number(config.threshold)}"
    checks = [(r, p) for p in history if (r := p.evaluation_return) is not None]
    if checks:
        returns = [r for r, _ in checks]
        note = f"greedy, {checks[-1][1].evaluation_episodes} episodes"
        yield "return", curve(returns, top=top), number(returns[-1]) + goal, note
        goal = ""
    returns = [r for p in history if (r := p.training_return) is not None]
    if returns:
        note = f"{history[-1].episodes:,} episodes so far"
        yield "training", curve(returns, top=top), number(returns[-1]) + goal, note


def _weight_rows(
    history: Sequence[Progress], config: TrainConfig, curve: Graphic, share: Graphic
) -> Iterator[Row]:
    """Yield what the weights and the last improvement look like."""
    now = history[-1]
    ess = Text(share(now.ess), style=_ess_style(now.ess, config.min_ess))
    yield "ESS", ess, f"{now.ess:.0%}", f"of {now.reused_steps:,} reused steps"
    largest = curve([p.max_weight for p in history], top=1.0)
    yield "weights", largest, f"largest {number(now.max_weight)}", f"mean {now.mean_weight:.2f}"
    ended = f"{IMPROVEMENT_ENDED[now.ended_by]}, {now.epochs} of {config.epochs}"
    moved = curve([p.kl for p in history], top=config.max_kl)
    yield "KL", moved, f"{now.kl:.3f} of {config.max_kl:g}", ended
    entropy = curve([p.entropy for p in history], top=float("-inf"))
    yield "entropy", entropy, f"{now.entropy:.2f}", ""
    yield "reuse", curve([p.uses for p in history], top=0.0), times(now.uses), "each step so far"


def _ess_style(ess: float, least: float) -> str:
    if ess < least:
        return "red"
    return "yellow" if ess < 0.5 else "green"
