"""report.html: a run on one page that needs nothing beside itself."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reweigh.report import charts, svg
from reweigh.report.summary import next_commands, outcome, summarise
from reweigh.report.wording import duration, number, times
from reweigh.train.config import TrainConfig
from reweigh.train.loop import finished
from reweigh.train.progress import Progress
from reweigh.train.run import Run, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = (960, 400)
NARROW = (380, 330)
SMALL = (400, 235)


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


def write_figure(run: Run, *, compared: Run | None, path: Path) -> None:
    """Write the headline picture of the report alone, as an SVG file.

    Raises:
        ValueError: one of the runs has no complete iteration yet.
    """
    told, other = Told.of(run), None if compared is None else Told.of(compared)
    picture = _headline(told, other, "picture", WIDE)
    path.write_text(svg.standalone(picture, width=WIDE[0], height=WIDE[1]), encoding="utf-8")


def page(told: Told, compared: Told | None, path: Path) -> str:
    """Return the page as HTML."""
    said = outcome(told.summary, None if compared is None else compared.summary)
    seed = told.config.seed
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(told.config.environment)} · reweigh</title>
<style>
{svg.colour_variables()}
body{{font-family:{svg.FONT}}}
{files("reweigh.report").joinpath("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header>
<p class="kicker">reweigh · {escape(str(path))}</p>
<h1>{escape(told.config.environment)}</h1>
<p class="outcome">{escape(said)}</p>
</header>
<figure class="headline">
<div class="wide">{_headline(told, compared, "wide", WIDE)}</div>
<div class="narrow">{_headline(told, compared, "narrow", NARROW)}</div>
<figcaption>{escape(_headline_caption(told, compared))}</figcaption>
</figure>
{_numbers(told)}
{_weights(told)}
{_improvements(told)}
<h2>Settings</h2>
<p>The same settings and seed {seed} give the same policy again on the same machine.</p>
{_definitions("settings", asdict(told.config))}
<h2>How to go on</h2>
{_commands(told, path)}
<footer>reweigh {escape(told.summary["reweigh"])}, PyTorch {escape(told.summary["torch"])},
Gymnasium {escape(told.summary["gymnasium"])}</footer>
</main>
</body>
</html>
"""


def _headline(told: Told, compared: Told | None, name: str, size: tuple[int, int]) -> str:
    def paint(axes: "Axes") -> None:
        other = None if compared is None else compared.history
        charts.learning_curve(axes, told.history, other, threshold=told.config.threshold)
        for who, colour in ((compared, svg.CONTRAST), (told, svg.ACCENT)):
            if who is not None and who.summary["steps_to_threshold"] is not None:
                charts.mark_reached(axes, who.history, who.summary["steps_to_threshold"], colour)

    said = outcome(told.summary, None if compared is None else compared.summary)
    label = f"Return over environment steps. {said}"
    return svg.draw(paint, name=name, label=label, width=size[0], height=size[1])


def _headline_caption(told: Told, compared: Told | None) -> str:
    text = "Further left and higher is better: more return from fewer steps of the environment."
    if told.summary["final_return"] is not None:
        text += (
            f" Each check of the greedy policy is the mean of {told.config.evaluation_episodes} or"
            " more episodes whose steps are not counted."
        )
    if compared is not None:
        text += (
            " One run each, with one seed: how much reuse saves in general takes several seeds to"
            " tell."
        )
    return text


def _numbers(told: Told) -> str:
    now, summary = told.history[-1], told.summary
    numbers = {
        "environment steps": f"{summary['steps']:,}",
        "episodes": f"{summary['episodes']:,}",
        "each step was used": times(summary["uses"]),
        "effective sample size, last": f"{now.ess:.0%}",
        "largest weight, last": number(now.max_weight),
        "training time": duration(summary["seconds"]),
    }
    if summary["final_return"] is not None:
        last = f"greedy return, last check ({summary['final_return_episodes']} episodes)"
        numbers = {last: number(summary["final_return"]), **numbers}
    return _definitions("numbers", numbers)


def _weights(told: Told) -> str:
    now = told.history[-1]
    return _section(
        "Do the old steps still count?",
        "A step's weight is how much likelier the new policy is to act as the old one did. The last"
        f" improvement learnt from {now.reused_steps:,} steps of {len(now.ess_by_age)} policies.",
        _chart(
            "Effective sample size by age",
            "A gentle slope is healthy; near zero, steps are too old to teach much.",
            f"Newest {now.ess_by_age[0]:.0%}, oldest {now.ess_by_age[-1]:.0%}.",
            lambda axes: charts.effective_sample_size_by_age(axes, now),
        ),
        _chart(
            "Mean weight by age",
            "Expected to be 1 at every age; far from it, a few heavy weights decide.",
            f"Mean over all ages {now.mean_weight:.3f}.",
            lambda axes: charts.mean_weight_by_age(axes, now),
        ),
        _chart(
            "Weights of the reused steps",
            "A narrow hill at 1 is healthy; steps at the far left have lost their say.",
            f"Largest weight {number(now.max_weight)}.",
            lambda axes: charts.weight_histogram(axes, now),
        ),
        _chart(
            "Effective sample size",
            "How much of the reused steps the weights leave; below the dashed line an improvement"
            " ends.",
            f"Last {now.ess:.0%}.",
            lambda axes: charts.effective_sample_size(
                axes, told.history, least=told.config.min_ess
            ),
        ),
    )


def _improvements(told: Told) -> str:
    now, history = told.history[-1], told.history
    return _section(
        "How does it learn?",
        "An improvement passes over the reused steps until the policy has moved far enough.",
        _chart(
            "KL of each improvement",
            "Just above the dashed line is where an improvement is meant to end; far above it, the"
            " steps of the optimiser are too long.",
            f"Last {now.kl:.3f} nats per step.",
            lambda axes: charts.over_steps(
                axes, history, lambda p: p.kl, limit=told.config.max_kl, name="max_kl"
            ),
        ),
        _chart(
            "Passes of each improvement",
            "Always one or two passes: the policy moves so fast that reuse has little to add.",
            f"Last {now.epochs}.",
            lambda axes: charts.epochs(axes, history),
        ),
        _chart(
            "Entropy",
            "It falls as the policy makes up its mind; a fall to nothing before the return rises is"
            " too early.",
            f"Last {now.entropy:.2f} nats.",
            lambda axes: charts.over_steps(
                axes, history, lambda p: p.entropy, limit=None, name="entropy"
            ),
        ),
        _chart(
            "Policy loss",
            "Below zero, as each improvement lowers it; its size does not tell how good the policy"
            " is.",
            f"Last {now.policy_loss:.3f}.",
            lambda axes: charts.over_steps(
                axes, history, lambda p: p.policy_loss, limit=None, name="policy loss"
            ),
        ),
        _chart(
            "Value loss",
            "In units of the returns' variance: near 0.5, the value function explains nothing; near"
            " 0, nearly all.",
            f"Last {now.value_loss:.3f}.",
            lambda axes: charts.over_steps(
                axes, history, lambda p: p.value_loss, limit=None, name="value loss"
            ),
        ),
    )


def _section(heading: str, introduction: str, *contents: str) -> str:
    body = "\n".join(contents)
    return (
        f"<section>\n<h2>{escape(heading)}</h2>\n<p>{escape(introduction)}</p>\n"
        f'<div class="charts">\n{body}\n</div>\n</section>'
    )


def _chart(heading: str, advice: str, reading: str, paint: Callable[["Axes"], None]) -> str:
    """Return a chart under its heading; `reading` is what it shows, `advice` what to look for."""
    drawn = svg.draw(
        paint,
        name=heading.lower().replace(" ", "-"),
        label=f"{heading}. {reading}",
        width=SMALL[0],
        height=SMALL[1],
    )
    return (
        f"<figure>\n<h3>{escape(heading)}</h3>\n{drawn}\n"
        f"<figcaption>{escape(advice)} {escape(reading)}</figcaption>\n</figure>"
    )


def _definitions(name: str, values: dict[str, Any]) -> str:
    rows = "\n".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(str(value))}</dd></div>"
        for term, value in values.items()
    )
    return f'<dl class="{name}">\n{rows}\n</dl>'


def _commands(told: Told, path: Path) -> str:
    rows = "\n".join(
        f"<dt>{escape(what)}</dt><dd><code>{escape(command)}</code></dd>"
        for what, command in next_commands(told.summary, path)
    )
    return f'<dl class="commands">\n{rows}\n</dl>'
