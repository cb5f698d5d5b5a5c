"""An evaluation on one page with pictures that needs nothing beside itself."""

from html import escape
from importlib.metadata import version
from pathlib import Path

from reweigh.data.files import write_whole
from reweigh.evaluation.estimates import Estimate, Evaluation
from reweigh.evaluation.profile import LIMIT
from reweigh.report import evaluation_charts as charts
from reweigh.report import evaluation_figures as figures
from reweigh.report import evaluation_wording as said
from reweigh.report import shell, svg
from reweigh.report.wording import percent

_HEIGHT = 64
"""Of what is around the estimates in the first chart, in pixels."""


def write_evaluation_page(
    evaluation: Evaluation, path: Path, *, policy: str | None = None, log: str | None = None
) -> None:
    """Write an evaluation as one HTML file.

    Args:
        evaluation: What was found.
        path: The file; its folder exists.
        policy: What to call the policy, such as where it lies.
        log: What to call the log.

    Raises:
        OSError: The file cannot be written.
    """
    write_whole(path, page(evaluation, policy=policy, log=log).encode())


def page(evaluation: Evaluation, *, policy: str | None, log: str | None) -> str:
    """Return the page as HTML."""
    what = [f"{name} {value}" for name, value in (("policy", policy), ("log", log)) if value]
    return shell.document(
        said.title(evaluation),
        shell.header(
            " · ".join(["reweigh", *what]), said.title(evaluation), said.verdict(evaluation)
        ),
        shell.headline(
            _headline(evaluation, "wide", shell.WIDE[0], row=32, names_beside=True),
            _headline(evaluation, "narrow", shell.NARROW[0], row=44, names_beside=False),
            _caption(evaluation),
        ),
        _numbers(evaluation),
        _weights(evaluation),
        _estimates(evaluation),
        footer=f"reweigh {version('reweigh')}",
    )


def _headline(
    evaluation: Evaluation, name: str, width: float, *, row: float, names_beside: bool
) -> str:
    return svg.draw(
        lambda axes: charts.estimates(axes, evaluation, names_beside=names_beside),
        name=name,
        label=f"Estimates and their intervals. {said.verdict(evaluation)}",
        width=width,
        height=_HEIGHT + row * len(evaluation.estimates),
    )


def _caption(evaluation: Evaluation) -> str:
    sentences = [
        f"A point is an estimate, the line through it its {percent(evaluation.level)} interval."
    ]
    if said.BEHAVIOUR in evaluation.estimates:
        sentences.append("Dashed is the behaviour's own value, in the band of its interval.")
    if said.doubts(evaluation):
        sentences.append("Pale ones should not be believed.")
    return " ".join(sentences)


def _numbers(evaluation: Evaluation) -> str:
    d, chosen = said.decimals(evaluation), said.first_look(evaluation)
    own = evaluation.estimates.get(said.BEHAVIOUR)
    numbers = {}
    if chosen is not None:
        numbers[f"{chosen.method}, the estimate to look at first"] = figures.with_error(chosen, d)
    if own is not None:
        numbers["the behaviour's own value"] = figures.with_error(own, d)
    if chosen is not None and chosen.weights:
        ess, share = figures.size(chosen)
        numbers[f"effective sample size, {share} of the {figures.unit(chosen)}"] = ess
    numbers["logged episodes"] = f"{evaluation.episodes:,}"
    numbers["logged steps"] = f"{evaluation.steps:,}"
    return shell.definitions("numbers", numbers)


def _weights(evaluation: Evaluation) -> str:
    source = said.source_of_weights(evaluation)
    heading = "Does the log speak for the policy?"
    if not evaluation.weight_histogram:
        return shell.section(heading, source)
    sizes = evaluation.ess_by_time
    charted = [
        shell.chart(
            "Weights of the episodes",
            "How much likelier the policy is to act as an episode did than the behaviour was. A "
            "narrow hill at 1 is healthy; episodes at the far left have no say, and a few at the "
            "far right have nearly all.",
            f"{_share_within(evaluation):.0%} lie between 0.1 and 10.",
            lambda axes: charts.weight_histogram(axes, evaluation),
        )
    ]
    if sizes:
        charted.append(
            shell.chart(
                "Effective sample size over time",
                "As many episodes of the policy itself would be as good; ratios multiply, and so "
                "it mostly falls. Rewards that come where few are left are hardly known.",
                f"{sizes[0]:,.0f} episodes at the first step, {sizes[-1]:,.0f} at the last.",
                lambda axes: charts.effective_sample_size(axes, evaluation),
            )
        )
    return shell.section(heading, source, *charted)


def _share_within(evaluation: Evaluation) -> float:
    """The share of the episodes whose weight is from 0.1 to 10."""
    counts = evaluation.weight_histogram
    outside = len(counts) * (LIMIT - 1) // (2 * LIMIT)
    return sum(counts[outside : len(counts) - outside]) / sum(counts)


def _estimates(evaluation: Evaluation) -> str:
    d, notes = said.decimals(evaluation), said.doubts(evaluation)
    heads = (*figures.heads(evaluation.level), "doubts")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("estimator", *heads))
    chosen = said.first_look(evaluation)
    rows = "\n".join(_row(e, heads, d, notes, first=e is chosen) for e in said.in_order(evaluation))
    return f"""<section>
<h2>All estimates</h2>
<p>{escape(said.basis(evaluation))} {escape(said.key(evaluation))}</p>
<table class="estimates">
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{_doubts(notes)}
{_left_out(evaluation)}
</section>"""


def _row(e: Estimate, heads: tuple[str, ...], d: int, notes: dict[str, int], *, first: bool) -> str:
    numbers = sorted(notes[warning] for warning in e.warnings)
    links = " ".join(f'<a href="#doubt-{number}">{number}</a>' for number in numbers)
    cells = [*("" if text == "-" else escape(text) for text in figures.row(e, d)), links]
    name = "behaviour" if e.method == said.BEHAVIOUR else "doubted" if numbers else ""
    if first:
        name = "first"
    filled = "".join(
        f'<td data-head="{escape(head)}">{cell}</td>'
        for head, cell in zip(heads, cells, strict=True)
    )
    return f'<tr class="{name}"><th scope="row">{escape(e.method)}</th>{filled}</tr>'


def _doubts(notes: dict[str, int]) -> str:
    if not notes:
        return ""
    items = "\n".join(f'<li id="doubt-{n}">{escape(why)}</li>' for why, n in notes.items())
    return f"<h3>Doubts</h3>\n<p>{said.DOUBTED}.</p>\n<ol>\n{items}\n</ol>"


def _left_out(evaluation: Evaluation) -> str:
    found = said.left_out(evaluation)
    if not found:
        return ""
    items = "\n".join(
        f"<dt>{escape(', '.join(names))}</dt><dd>{escape(why)}</dd>" for why, names in found.items()
    )
    return f'<h3>Left out</h3>\n<dl class="reasons">\n{items}\n</dl>'
