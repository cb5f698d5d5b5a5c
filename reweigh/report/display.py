"""The live display of a training run; plain lines where there is no terminal."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from reweigh.report.screen import Graphics, Row, Screen, dashboard, ess_bar
from reweigh.report.wording import duration, encodable, number, times
from reweigh.train.config import TrainConfig
from reweigh.train.progress import Progress
from reweigh.train.run import Run

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
        self._screen = Screen(console)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        waiting = Group(self._heading(), Text("taking the first steps", style="dim"))
        self._screen.begin(waiting, f"{title(self._run.config)}, in {self._run.path}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        """Show one iteration."""
        if not self._history:
            self._history = [p for p in self._run.metrics() if p.iteration < progress.iteration]
        self._history.append(progress)
        for dropped in progress.dropped:
            self._screen.say(f"dropped an episode: {dropped}")
        self._screen.show(self._drawing, line(progress, self._run.config), progress.seconds)

    def _drawing(self) -> Group:
        return Group(self._heading(), draw(self._history, self._run.config, self._console))

    def _heading(self) -> Text:
        path = encodable(str(self._run.path), self._console)
        heading = Text("\n", overflow="fold")
        return heading.append(title(self._run.config), style="bold").append(f"\n{path}\n", "dim")


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


def draw(history: Sequence[Progress], config: TrainConfig, console: Console) -> Table:
    """Draw where a run stands: how far it is, and one row for each thing worth watching."""
    graphics = Graphics.of(console)
    rows = (
        _steps_row(history, config, graphics),
        *_return_rows(history, config, graphics),
        *_weight_rows(history, config, graphics),
    )
    return dashboard(rows, graphics)


def _steps_row(history: Sequence[Progress], config: TrainConfig, graphics: Graphics) -> Row:
    now = history[-1]
    left = f"{duration(time_left(history, config))} left"
    if now.steps >= config.steps:
        left = "all taken"
    elif config.threshold is not None:
        left = f"at most {left}"
    return (
        "steps",
        graphics.share(now.steps / config.steps),
        f"{now.steps:,} of {config.steps:,}",
        left,
    )


def _return_rows(
    history: Sequence[Progress], config: TrainConfig, graphics: Graphics
) -> Iterator[Row]:
    """Yield the greedy policy's returns and the training episodes', as far as there are any."""
    top = float("-inf") if config.threshold is None else config.threshold
    goal = "" if config.threshold is None else f" of {number(config.threshold)}"
    checks = [(r, p) for p in history if (r := p.evaluation_return) is not None]
    if checks:
        returns = [r for r, _ in checks]
        note = f"greedy, {checks[-1][1].evaluation_episodes} episodes"
        yield "return", graphics.curve(returns, top=top), number(returns[-1]) + goal, note
        goal = ""
    returns = [r for p in history if (r := p.training_return) is not None]
    if returns:
        note = f"{history[-1].episodes:,} episodes so far"
        yield "training", graphics.curve(returns, top=top), number(returns[-1]) + goal, note


def _weight_rows(
    history: Sequence[Progress], config: TrainConfig, graphics: Graphics
) -> Iterator[Row]:
    """Yield what the weights and the last improvement look like."""
    now = history[-1]
    ess = ess_bar(now.ess, graphics, least=config.min_ess)
    yield "ESS", ess, f"{now.ess:.0%}", f"of {now.reused_steps:,} reused steps"
    largest = graphics.curve([p.max_weight for p in history], top=1.0)
    yield "weights", largest, f"largest {number(now.max_weight)}", f"mean {now.mean_weight:.2f}"
    ended = f"{IMPROVEMENT_ENDED[now.ended_by]}, {now.epochs} of {config.epochs}"
    moved = graphics.curve([p.kl for p in history], top=config.max_kl)
    yield "KL", moved, f"{now.kl:.3f} of {config.max_kl:g}", ended
    entropy = graphics.curve([p.entropy for p in history], top=float("-inf"))
    yield "entropy", entropy, f"{now.entropy:.2f}", ""
    yield (
        "reuse",
        graphics.curve([p.uses for p in history], top=0.0),
        times(now.uses),
        "each step so far",
    )
