"""report.html: a run on one page that needs nothing beside itself."""

from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reweigh.data.files import write_whole
from reweigh.report import charts, shell, svg
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
        """Read a run.

        Raises:
            ValueError: it has no complete iteration yet.
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
    """Write report.html into the run folder and return its path.

    Args:
        run: The run.
        compared: The same learner trained without reuse, to draw beside it.

    Raises:
        ValueError: one of them has no complete iteration yet.
    """
    path = run.path / "report.html"
    other = None if compared is None else Told.of(compared)
    write_whole(path, page(Told.of(run), other, run.path).encode())
    return path


def page(told: Told, compared: Told | None, path: Path) -> str:
    """Return the page as HTML."""
    said = outcome(told.summary, None if compared is None else compared.summary)
    versions = {"reweigh": "reweigh", "PyTorch": "torch", "Gymnasium": "gymnasium"}
    return shell.document(
        told.config.environment,
        shell.header(f"reweigh · {path}", told.config.environment, said),
        shell.headline(
            _headline(told, compared, "wide", shell.WIDE),
            _headline(told, compared, "narrow", shell.NARROW),
            _headline_caption(told, compared),
        ),
        _numbers(told),
        _weights(told),
        _improvements(told),
        "<h2>Settings</h2>",
        f"<p>The same settings and seed {told.config.seed} give the same policy again on the same"
        " machine.</p>",
        shell.definitions("settings", _settings(told.config)),
        "<h2>How to go on</h2>",
        _commands(told, path),
        footer=", ".join(f"{name} {told.summary[key]}" for name, key in versions.items()),
    )


def _headline(told: Told, compared: Told | None, name: str, size: tuple[int, int]) -> str:
    def paint(axes: "Axes") -> None:
        charts.learning_curve(
            axes,
            told.history,
            None if compared is None else compared.history,
            threshold=told.config.threshold,
            legend_columns=2 if size == shell.WIDE else 1,
        )
        for who, colour, height in ((compared, svg.CONTRAST, 0.14), (told, svg.ACCENT, 0.05)):
            if who is not None and (steps := who.summary["steps_to_threshold"]) is not None:
                charts.mark_reached(axes, who.history, steps, colour, height=height)

    said = outcome(told.summary, None if compared is None else compared.summary)
    label = f"Return over environment steps. {said}"
    return svg.draw(paint, name=name, label=label, width=size[0], height=size[1])


def _headline_caption(told: Told, compared: Told | None) -> str:
    sentences = ["Further left and higher is better: more return from fewer environment steps."]
    if (episodes := told.config.evaluation_episodes) > 0:
        sentences.append(
            f"Each point of the greedy policy is the mean of {episodes} episodes whose steps are"
            f" not counted; at the threshold, of {CONFIRMING_EPISODES}."
        )
    if compared is not None:
        sentences.append(
            "This is one run each: how much reuse saves in general takes several seeds to tell."
        )
    return " ".join(sentences)


def _numbers(told: Told) -> str:
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
    return shell.definitions("numbers", numbers)


def _weights(told: Told) -> str:
    now = told.history[-1]
    return shell.section(
        "Do the old steps still count?",
        "A step's weight is how much likelier the new policy is to act as the old one did. The last"
        f" improvement learnt from {now.reused_steps:,} steps of {len(now.ess_by_age)} policies.",
        shell.chart(
            "Effective sample size by age",
            "A gentle slope is healthy; near zero, steps are too old to teach much.",
            f"Newest {now.ess_by_age[0]:.0%}, oldest {now.ess_by_age[-1]:.0%}.",
            lambda axes: charts.effective_sample_size_by_age(axes, now),
        ),
        shell.chart(
            "Mean weight by age",
            "Expected to be 1 at every age; far from it, there are too few steps or a few heavy"
            " weights decide.",
            f"Mean over all ages {now.mean_weight:.3f}.",
            lambda axes: charts.mean_weight_by_age(axes, now),
        ),
        shell.chart(
            "Weights of the reused steps",
            "A narrow hill at 1 is healthy; steps at the far left have lost their say.",
            f"Largest weight {number(now.max_weight)}.",
            lambda axes: charts.weight_histogram(axes, now),
        ),
    )


def _improvements(told: Told) -> str:
    now, history, config = told.history[-1], told.history, told.config
    return shell.section(
        "How does it learn?",
        "An improvement passes over the reused steps until its passes are done, until the policy"
        " has moved far enough, or until too little of the reused steps still counts.",
        shell.chart(
            "Effective sample size",
            "How much of the reused steps their weights leave; an improvement ends below the dashed"
            f" line, min_ess, {config.min_ess:.0%}.",
            f"Last {now.ess:.0%}.",
            lambda axes: charts.effective_sample_size(axes, history, least=config.min_ess),
        ),
        shell.chart(
            "KL of each improvement",
            "An improvement ends above the dashed line; points far above it mean that a single pass"
            " moves the policy too far.",
            f"Last {now.kl:.3f} nats per step, max_kl {config.max_kl:g}.",
            lambda axes: charts.kl(axes, history, limit=settled(config.max_kl)),
        ),
        shell.chart(
            "Passes of each improvement",
            "One pass every time would mean that each improvement meets a limit at once.",
            f"Last {now.epochs} of at most {config.epochs}.",
            lambda axes: charts.epochs(axes, history),
        ),
        shell.chart(
            "Entropy",
            "It falls as the policy makes up its mind; if it is gone before the return has risen,"
            " the policy no longer tries anything.",
            f"Last {now.entropy:.2f} nats.",
            lambda axes: charts.over_steps(axes, history, lambda p: p.entropy),
        ),
        shell.chart(
            "Policy loss",
            "The clipped objective with its sign turned, so lower is better; it does not tell how"
            " good the policy is.",
            f"Last {now.policy_loss:.3f}.",
            lambda axes: charts.over_steps(axes, history, lambda p: p.policy_loss),
        ),
        shell.chart(
            "Value loss",
            "In units of the returns' variance: near 0.5, the value function explains nothing; near"
            " 0, nearly all.",
            f"Last {now.value_loss:.3f}.",
            lambda axes: charts.over_steps(axes, history, lambda p: p.value_loss),
        ),
    )


def _settings(config: TrainConfig) -> dict[str, str]:
    """Return the options as the command line takes them."""
    written = {}
    for name, value in asdict(config).items():
        words = value if isinstance(value, tuple) else (value,)
        written[name] = "none" if value is None else " ".join(map(str, words))
    return written


def _commands(told: Told, path: Path) -> str:
    rows = "\n".join(
        f"<dt>{escape(what)}</dt><dd><code>{escape(command)}</code></dd>"
        for what, command in next_commands(told.summary, path)
    )
    return f'<dl class="commands">\n{rows}\n</dl>'
