"""report.html: a run on one page."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reweigh.report import charts, svg
from reweigh.report.page import Headline, write_page
from reweigh.report.summary import next_commands, outcome, summarise
from reweigh.report.wording import duration, number, times
from reweigh.train.config import TrainConfig, settled
from reweigh.train.loop import CONFIRMING_EPISODES, finished
from reweigh.train.progress import Progress
from reweigh.train.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Told:
    """What a run has to tell: its settings, its iterations and its outcome."""

    config: TrainConfig
    history: list[Progress]
    summary: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> "Told":
        """What a run has to tell so far.

        Raises:
            ValueError: The run has no complete iteration yet.
        """
        history = list(run.metrics())
        saved = run.load_checkpoint()
        if not history or saved is None:
            raise ValueError(
                f"{run.path} has nothing to report: no iteration is complete; "
                f"go on with it by `reweigh resume {run.path}`"
            )
        ended_by = finished(run.config, saved[0]) or "interrupt"
        return cls(run.config, history, summarise(run, ended_by))


def write_report(run: Run, *, compared: Run | None) -> Path:
    """Writes report.html into the run folder and returns its path.

    Args:
        run: The run.
        compared: The same learner trained without reuse, to draw beside it.

    Raises:
        ValueError: One of them has no complete iteration yet.
    """
    path = run.path / "report.html"
    told, other = Told.of(run), None if compared is None else Told.of(compared)
    config, history, now, summary = told.config, told.history, told.history[-1], told.summary
    said = outcome(summary, None if other is None else other.summary)
    versions = {"reweigh": "reweigh", "PyTorch": "torch", "Gymnasium": "gymnasium"}
    write_page(
        path,
        "run.html",
        title=config.environment,
        kicker=f"reweigh · {run.path}",
        outcome=said,
        headline=Headline(
            f"Return over environment steps. {said}",
            partial(_headline, told=told, compared=other, legend_columns=2),
            partial(_headline, told=told, compared=other, legend_columns=1),
        ),
        charts={
            "Effective sample size by age": lambda axes: charts.ess_by_age(axes, now),
            "Mean weight by age": lambda axes: charts.mean_weight_by_age(axes, now),
            "Weights of the reused steps": partial(
                charts.weight_histogram,
                counts=now.weight_histogram,
                ticks={-2: "≤ 0.01", -1: "0.1", 0: "1", 1: "10", 2: "≥ 100"},
                label="weight",
            ),
            "Effective sample size": lambda axes: charts.ess(axes, history, least=config.min_ess),
            "KL of each improvement": lambda axes: charts.kl(
                axes, history, limit=settled(config.max_kl)
            ),
            "Passes of each improvement": lambda axes: charts.epochs(axes, history),
            "Entropy": lambda axes: charts.over_steps(axes, history, lambda p: p.entropy),
            "Policy loss": lambda axes: charts.over_steps(axes, history, lambda p: p.policy_loss),
            "Value loss": lambda axes: charts.over_steps(axes, history, lambda p: p.value_loss),
        },
        numbers=_numbers(told),
        config=config,
        compared=other,
        confirming_episodes=CONFIRMING_EPISODES,
        now=now,
        settings=_settings(config),
        commands=next_commands(summary, run.path),
        footer=", ".join(f"{name} {summary[key]}" for name, key in versions.items()),
    )
    return path


def _headline(axes: "Axes", *, told: Told, compared: Told | None, legend_columns: int) -> None:
    charts.learning_curve(
        axes,
        told.history,
        None if compared is None else compared.history,
        threshold=told.config.threshold,
        legend_columns=legend_columns,
    )
    for who, colour, height in ((compared, svg.CONTRAST, 0.14), (told, svg.ACCENT, 0.05)):
        if who is not None and (steps := who.summary["steps_to_threshold"]) is not None:
            charts.mark_reached(axes, who.history, steps, colour, height=height)


def _numbers(told: Told) -> dict[str, str]:
    now, summary = told.history[-1], told.summary
    numbers = {
        f"environment steps, {summary['episodes']:,} episodes": f"{summary['steps']:,}",
        "each step was used": times(summary["uses"]),
        "effective sample size at the end": f"{now.ess:.0%}",
        "largest weight at the end": number(now.max_weight),
        "training time": duration(summary["seconds"]),
    }
    if summary["final_return"] is not None:
        last = f"greedy return, mean of {summary['final_return_episodes']} episodes"
        numbers = {last: number(summary["final_return"]), **numbers}
    return numbers


def _settings(config: TrainConfig) -> dict[str, str]:
    """The options as the command line takes them."""
    return {
        name: "none"
        if value is None
        else " ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
        for name, value in asdict(config).items()
    }
