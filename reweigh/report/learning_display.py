"""The live display of learning from a log."""

from collections.abc import Generator, Iterator, Sequence

from rich.console import Console

from reweigh.learning.config import EpochProgress, LearnConfig
from reweigh.learning.learn import Learnt
from reweigh.report.screen import Graphics, LiveDisplay, Row
from reweigh.report.wording import counted, duration

UNDONE = {"ess": "ESS limit", "kl": "KL limit"}
"""Bounds of the trust region in words, by the name that breaks one."""


class LearningDisplay(LiveDisplay):
    """Shows how learning goes: `with LearningDisplay(config, console, log=path) as display: ...`.

    Args:
        config: The options.
        console: Where to show it.
        log: The log that is learnt from.
    """

    def __init__(self, config: LearnConfig, console: Console, *, log: str):
        super().__init__(
            console,
            title="learning from a log",
            place=log,
            begun=f"learning from {log}",
            waiting="reading the log",
        )
        self._config = config
        self._history: list[EpochProgress] = []

    def show(self, progress: EpochProgress) -> None:
        """Shows one epoch."""
        self._history.append(progress)
        self.redraw(
            lambda graphics: rows(self._history, self._config, graphics),
            line(progress, self._config),
            progress.seconds,
        )

    def watch(self, learning: Generator[EpochProgress, None, Learnt]) -> Learnt:
        """Shows every epoch of `learning.learn.learning`, and returns the outcome."""
        while True:
            try:
                progress = next(learning)
            except StopIteration as end:
                return end.value
            self.show(progress)


def line(progress: EpochProgress, config: LearnConfig) -> str:
    """One epoch as a plain line."""
    parts = [
        f"epoch {progress.epoch}/{config.epochs}",
        f"objective {progress.objective:.4g}",
        f"ESS {progress.ess:.0%}",
        f"KL {progress.kl:.3f}",
    ]
    if progress.undone is not None:
        parts.append(f"undone ({UNDONE[progress.undone]})")
    if progress.improvement is not None:
        parts.append(f"improvement {progress.improvement:+.3g}")
    if progress.predicted_bound is not None:
        parts.append(f"bound {progress.predicted_bound:+.3g}{' (best)' if progress.best else ''}")
    return "  ".join(parts)


def rows(
    history: Sequence[EpochProgress], config: LearnConfig, graphics: Graphics
) -> Iterator[Row]:
    """One row for each thing worth watching."""
    now = history[-1]
    left = duration((config.epochs - now.epoch) * now.seconds / now.epoch)
    share = graphics.bar(now.epoch / config.epochs)
    yield "epochs", share, f"{now.epoch} of {config.epochs}", f"at most {left} left"
    objective = graphics.curve([p.objective for p in history])
    yield "objective", objective, f"{now.objective:.4g}", config.estimator
    yield from _validation_rows(history, graphics)
    ess = graphics.ess(now.ess, least=config.min_episode_ess)
    yield "ESS", ess, f"{now.ess:.0%}", f"at least {config.min_episode_ess:.0%}"
    moved = graphics.curve([p.kl for p in history], top=config.max_kl_from_behaviour)
    yield "KL", moved, f"{now.kl:.3f} of {config.max_kl_from_behaviour:g}", "nats per step"
    undone = [p for p in history if p.undone is not None]
    if undone:
        last = f"epoch {undone[-1].epoch}: {UNDONE[undone[-1].undone or '']}"
        yield "undone", "", counted(len(undone), "epoch"), last


def _validation_rows(history: Sequence[EpochProgress], graphics: Graphics) -> Iterator[Row]:
    """The improvement on the validation episodes and its bound, as far as there are any."""
    improvements = [p.improvement for p in history if p.improvement is not None]
    bounds = [p.predicted_bound for p in history if p.predicted_bound is not None]
    if not improvements or not bounds:
        return
    curve = graphics.curve(improvements)
    yield "improved", curve, f"{improvements[-1]:+.3g}", "on validation episodes"
    best = [f"best in epoch {p.epoch}: {p.predicted_bound:+.3g}" for p in history if p.best]
    note = best[-1] if best else "nothing to test yet"
    yield "bound", graphics.curve(bounds), f"{bounds[-1]:+.3g}", note
