"""An evaluation on one page with pictures."""

from functools import partial
from importlib.metadata import version
from pathlib import Path

from reweigh.evaluation.estimates import LIMIT, Evaluation
from reweigh.report import evaluation_charts as charts
from reweigh.report import evaluation_wording as said
from reweigh.report.charts import weight_histogram
from reweigh.report.page import Headline, write_page

_WIDE_ROW, _NARROW_ROW, _AROUND = 32, 44, 64
"""Heights in the first chart, in pixels: of an estimate, and of what is around them."""


def write_evaluation_page(
    evaluation: Evaluation, path: Path, *, policy: str | None = None, log: str | None = None
) -> None:
    """Writes an evaluation as one HTML file.

    Args:
        evaluation: The estimates.
        path: The file; its folder exists.
        policy: What to call the policy, such as where it lies.
        log: What to call the log.

    Raises:
        OSError: The file cannot be written.
    """
    names = [f"{name} {value}" for name, value in (("policy", policy), ("log", log)) if value]
    verdict, rows = said.verdict(evaluation), len(evaluation.estimates)
    write_page(
        path,
        "evaluation.html",
        title=said.title(evaluation),
        kicker=" · ".join(["reweigh", *names]),
        outcome=verdict,
        headline=Headline(
            f"Estimates and their intervals. {verdict}",
            partial(charts.estimates, evaluation=evaluation, names_beside=True),
            partial(charts.estimates, evaluation=evaluation, names_beside=False),
            (_AROUND + _WIDE_ROW * rows, _AROUND + _NARROW_ROW * rows),
        ),
        charts={
            "Weights of the episodes": partial(
                weight_histogram,
                counts=evaluation.weight_histogram,
                ticks={-LIMIT: "≤ 0.0001", -2: "0.01", 0: "1", 2: "100", LIMIT: "≥ 10,000"},
                label="weight of the episode",
            ),
            "Effective sample size over time": partial(
                charts.effective_sample_size, evaluation=evaluation
            ),
        },
        numbers=_numbers(evaluation),
        evaluation=evaluation,
        said=said,
        share_within=_share_within(evaluation),
        heads=said.heads(evaluation),
        rows=said.rows(evaluation),
        doubts=said.doubts(evaluation),
        left_out=said.left_out(evaluation),
        footer=f"reweigh {version('reweigh')}",
    )


def _numbers(evaluation: Evaluation) -> dict[str, str]:
    d, chosen = said.decimals(evaluation), said.first_look(evaluation)
    behaviour = evaluation.estimates.get(said.BEHAVIOUR)
    numbers = {}
    if chosen is not None:
        numbers[f"{chosen.method}, the estimate to look at first"] = said.with_error(chosen, d)
    if behaviour is not None:
        numbers["the behaviour's own value"] = said.with_error(behaviour, d)
    if chosen is not None and chosen.weights:
        ess, share = said.size(chosen)
        numbers[f"effective sample size, {share} of the {said.unit(chosen)}"] = ess
    return {
        **numbers,
        "logged episodes": f"{evaluation.episodes:,}",
        "logged steps": f"{evaluation.steps:,}",
    }


def _share_within(evaluation: Evaluation) -> float:
    """The share of the episodes whose weight is from 0.1 to 10; 0 if there are no weights."""
    counts = evaluation.weight_histogram
    outside = len(counts) * (LIMIT - 1) // (2 * LIMIT)
    return sum(counts[outside : len(counts) - outside]) / max(sum(counts), 1)
