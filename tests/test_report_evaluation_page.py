"""The page of an evaluation."""

import html
import re
from dataclasses import replace

import pytest
from report_evaluations import (
    ALONE,
    BEHAVIOUR,
    ESTIMATES,
    HUGE,
    K_HAT,
    LOST,
    MEAN,
    MODEL,
    OPEN,
    SURE,
    estimate,
    evaluation,
    without_weights,
)
from report_html import (
    Page,
    layout_in_chromium,
    needs_chromium,
    require_dark_side,
    require_seen_in_chromium,
    require_self_contained,
)

from reweigh.evaluation.estimates import BINS
from reweigh.report import evaluation_wording as said
from reweigh.report.evaluation_page import write_evaluation_page


def written(made, path, **names):
    write_evaluation_page(made, path, **names)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def page_of(tmp_path):
    return lambda made, **names: Page(written(made, tmp_path / "page.html", **names))


def test_the_page_says_what_came_out(page_of):
    page = page_of(evaluation(), policy="runs/a", log="runs/b/log")
    assert "reweigh · policy runs/a · log runs/b/log" in page.texts
    assert "What the policy is worth in CartPole-v1" in page.texts
    assert said.verdict(evaluation()) in page.texts
    assert "The behaviour's log-probabilities were recorded when it acted." in page.texts
    assert page.terms["weighted_per_decision, the estimate to look at first"] == "23.41 ± 0.48"
    assert page.terms["the behaviour's own value"] == "20.31 ± 0.30"
    assert page.terms["effective sample size, 41.2% of the episodes"] == "412"
    assert page.terms["logged episodes"] == "1,000"
    assert page.terms["logged steps"] == "20,000"
    assert page.terms["doubly_robust, weighted_doubly_robust"] == "there is one episode"


def table_of(text):
    rows = re.findall(r'<tr class="(\w*)"><th scope="row">(.*?)</th>(.*?)</tr>', text)
    return {
        html.unescape(name): (kind, re.findall(r"<td[^>]*>(.*?)</td>", row))
        for kind, name, row in rows
    }


def test_the_page_holds_every_number(tmp_path):
    rows = table_of(written(evaluation(), tmp_path / "page.html"))
    assert rows["behaviour"] == (
        "behaviour", ["20.31", "0.30", "19.71 to 20.91", "", "", "", ""],
    )  # fmt: skip
    assert rows["weighted_per_decision"] == (
        "first", ["23.41", "0.48", "22.45 to 24.37", "412", "41.2%", "0.41", ""],
    )  # fmt: skip
    kind, figures = rows["importance_sampling"]
    assert kind == "doubted"
    assert figures[-1] == '<a href="#doubt-1">1</a> <a href="#doubt-2">2</a>'
    assert rows["per_decision"][0] == ""
    assert list(rows) == [e.method for e in ESTIMATES]


def test_the_page_needs_nothing_beside_itself_and_follows_the_system_into_the_dark(tmp_path):
    text = written(evaluation(), tmp_path / "page.html")
    require_self_contained(text)
    require_dark_side(text, until="<h2>All estimates")


def test_the_doubts_are_on_the_page_once_and_where_they_are_referred_to(page_of):
    page = page_of(evaluation())
    assert [page.texts.count(why) for why in (MEAN, K_HAT, MODEL)] == [1, 1, 1]
    assert [a["id"] for a in page.all("li")] == ["doubt-1", "doubt-2", "doubt-3"]
    sure = page_of(evaluation(BEHAVIOUR, SURE, left_out={}))
    assert not {"Doubts", "Left out"} & set(sure.texts)


def test_every_chart_can_be_read_without_seeing_it(page_of):
    page = page_of(evaluation())
    labels = [a["aria-label"] for a in page.all("svg") if a.get("role") == "img"]
    assert labels == [
        f"Estimates and their intervals. {said.verdict(evaluation())}",
        f"Estimates and their intervals. {said.verdict(evaluation())}",
        "Weights of the episodes. 90% lie between 0.1 and 10.",
        "Effective sample size over time. 1,000 episodes at the first step, 413 at the last.",
    ]


def test_the_share_of_the_weights_near_1_is_that_of_three_orders_of_ten(page_of):
    counts = [0] * BINS
    counts[14], counts[15], counts[24], counts[25] = 1, 2, 4, 3  # 0.1 is an edge, and so is 10
    page = page_of(evaluation(weight_histogram=tuple(counts)))
    assert any("60% lie between 0.1 and 10." in text for text in page.texts)


def test_the_same_evaluation_gives_the_same_page(tmp_path):
    pages = [written(evaluation(), tmp_path / f"{i}.html") for i in range(2)]
    assert pages[0] == pages[1]


def test_names_are_escaped(tmp_path):
    hostile = '<b onclick="x">&amp;'
    made = evaluation(
        BEHAVIOUR, replace(SURE, method=hostile), replace(HUGE, warnings=(hostile,)),
        environment=hostile, behaviour=hostile, interval=hostile, left_out={hostile: hostile},
    )  # fmt: skip
    text = written(made, tmp_path / "page.html", policy=hostile, log=hostile)
    page = Page(text)
    assert "b" not in {tag for tag, _ in page.elements}
    assert page.terms[hostile] == hostile
    assert page.texts.count(hostile) >= 4  # beside the sentences that it is part of
    assert table_of(text)[hostile][0] == "first"


def test_without_log_probabilities_there_are_no_charts_of_weights(page_of):
    made = evaluation(
        BEHAVIOUR, ESTIMATES[5], weight_histogram=(), ess_by_time=(), behaviour="missing"
    )
    page = page_of(made)
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 2
    assert "The behaviour's log-probabilities are missing: nothing can be weighed." in page.texts
    assert "effective sample size" not in " ".join(page.terms)


@pytest.mark.parametrize(
    "estimates",
    [
        (BEHAVIOUR,),
        (SURE,),
        (ALONE,),
        (ALONE, LOST),
        (BEHAVIOUR, LOST, HUGE, OPEN),
        (BEHAVIOUR, SURE, LOST, HUGE, OPEN),
        (without_weights("behaviour", 5.0, 0.0), estimate("per_decision", 5.0, 0.0)),
        (without_weights("behaviour", -2e299, 1e298), estimate("per_decision", 3e299, 1e298)),
        (without_weights("behaviour", 1e-9, 1e-11), estimate("per_decision", 2e-9, 1e-10)),
        (OPEN,),
    ],
)
def test_whatever_the_numbers_there_is_a_page(page_of, estimates):
    page = page_of(evaluation(*estimates, ess_by_time=(3.0,)))
    assert not [text for text in page.texts if re.search(r"\bnan\b", text)]
    table = [a for a in page.all("td") if a["data-head"] == "value"]
    assert len(table) == len(estimates)


@needs_chromium
def test_chromium_shows_the_page(tmp_path):
    require_seen_in_chromium(written(evaluation(), tmp_path / "page.html"), tmp_path)


@needs_chromium
def test_chromium_scrolls_only_down(tmp_path):
    made = evaluation(*ESTIMATES, HUGE, replace(OPEN, method="a_name_without_end" * 4))
    text = written(made, tmp_path / "page.html")
    widths = (320, 390, 768, 1440)
    assert [width for width, *_ in layout_in_chromium(text, tmp_path, widths)] == list(widths)
