"""The live display of a training run."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console

from reweigh.report.screen import Graphics, LiveDisplay, Row
from reweigh.report.wording import duration, number, times
from reweigh.train.config import TrainConfig, settled
from reweigh.train.progress import Progress
from reweigh.train.run import Run

IMPROVEMENT_ENDED = {"epochs": "all passes done", "kl": "KL limit", "ess": "ESS limit"}


class TrainingDisplay(LiveDisplay):
    """Shows how a run goes: `with TrainingDisplay(run, console) as display: ...`.

    A resumed run's earlier iterations are read from its metrics.

    Args:
        run: The run, which is titled by its environment and by how many policies it reuses.
        console: Where to show it.
    """

    def __init__(self, run: Run, console: Console):
        name = title(run.config)
        super().__init__(
            console,
            title=name,
            place=str(run.path),
            begun=f"{name}, in {run.path}",
            waiting="taking the first steps",
        )
        self._run = run
        self._history: list[Progress] = []

    def show(self, progress: Progress) -> None:
        """Shows one iteration."""
        config = self._run.config
        if not self._history:
            self._history = [p for p in self._run.metrics() if p.iteration < progress.iteration]
        self._history.append(progress)
        for dropped in progress.dropped:
            self.say(f"dropped an episode: {dropped}")
        self.redraw(
            lambda graphics: rows(self._history, config, graphics),
            line(progress, config),
            progress.seconds,
        )


def title(config: TrainConfig) -> str:
    """What is trained and how far back it reuses steps."""
    if config.reuse == 1:
        return f"{config.environment} without reuse"
    return f"{config.environment} reusing the steps of {config.reuse} policies"


def line(progress: Progress, config: TrainConfig) -> str:
    """One iteration as a plain line."""
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
    """The seconds until the steps or the minutes run out, at the pace of the last ten."""
    now, then = history[-1], history[max(0, len(history) - 11)]
    pace = now.seconds / now.steps
    if now.steps > then.steps:
        pace = (now.seconds - then.seconds) / (now.steps - then.steps)
    left = max(0, config.steps - now.steps) * pace
    if config.minutes is not None:
        left = min(left, max(0.0, 60 * config.minutes - now.seconds))
    return left


def rows(history: Sequence[Progress], config: TrainConfig, graphics: Graphics) -> Iterator[Row]:
    """How far a run is, and one row for each thing worth watching."""
    now = history[-1]
    left = f"{duration(time_left(history, config))} left"
    if now.steps >= config.steps:
        left = "all taken"
    elif config.threshold is not None:
        left = f"at most {left}"
    share = graphics.bar(now.steps / config.steps)
    yield "steps", share, f"{now.steps:,} of {config.steps:,}", left
    yield from _return_rows(history, config, graphics)
    yield from _weight_rows(history, config, graphics)


def _return_rows(
    history: Sequence[Progress], config: TrainConfig, graphics: Graphics
) -> Iterator[Row]:
    """The greedy policy's returns and those of training episodes, as far as there are any."""
    top = -math.inf if config.threshold is None else config.threshold
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
    """What the weights and the last improvement look like."""
    now = history[-1]
    ess = graphics.ess(now.ess, least=config.min_ess)
    yield "ESS", ess, f"{now.ess:.0%}", f"of {now.reused_steps:,} reused steps"
    largest = graphics.curve([p.max_weight for p in history], top=1.0)
    yield "weights", largest, f"largest {number(now.max_weight)}", f"mean {now.mean_weight:.2f}"
    ended = f"{IMPROVEMENT_ENDED[now.ended_by]}, {now.epochs} of {config.epochs}"
    moved = graphics.curve([p.kl for p in history], top=settled(config.max_kl))
    yield "KL", moved, f"{now.kl:.3f} of {config.max_kl:g}", ended
    entropy = graphics.curve([p.entropy for p in history])
    yield "entropy", entropy, f"{now.entropy:.2f}", ""
    uses = graphics.curve([p.uses for p in history], top=0.0)
    yield "reuse", uses, times(now.uses), "each step so far"
