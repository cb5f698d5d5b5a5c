"""What a person sees of an evaluation: the table, JSON, and the page with pictures."""

import html
import io
import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from report_evaluations import (
    BEHAVIOUR,
    ESTIMATES,
    K_HAT,
    MEAN,
    MODEL,
    estimate,
    evaluation,
    without_weights,
)
from report_html import CHROMIUM, Page, chromium
from rich.cells import cell_len
from rich.console import Console

import reweigh as rw
from reweigh.acting.tabular import TabularPolicy
from reweigh.evaluation.profile import BINS
from reweigh.report import evaluation_charts as charts
from reweigh.report import evaluation_figures as numbers
from reweigh.report import evaluation_wording as said
from reweigh.report.evaluation_page import write_evaluation_page
from reweigh.report.evaluation_table import evaluation_json, print_evaluation
from reweigh.report.svg import ACCENT, CONTRAST

NAN, INF = math.nan, math.inf
SURE = estimate("weighted_per_decision", 23.41, 0.48)
HUGE = estimate("importance_sampling", 1.2e30, 3e29, warnings=(K_HAT,))
LOST = estimate(
    "per_decision", NAN, NAN, low=NAN, high=NAN, effective_sample_size=0.0, k_hat=INF,
    warnings=("The tail of 1 episodes cannot be judged.",),
)  # fmt: skip
OPEN = estimate("truncated", 3.0, INF, low=-INF, high=INF, warnings=(K_HAT,))
ALONE = without_weights("behaviour", 7.0, NAN, low=NAN, high=NAN, episodes=1)


def printed(made, width=100, encoding="utf-8", **environment):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True, newline="")
    print_evaluation(made, Console(file=file, width=width, _environ=environment))
    return raw.getvalue().decode(encoding)


def cells(text):
    """The table's rows, each as its name and its figures."""
    table = text.split("\n\n", 1)[1].split("SE: standard error")[0]
    rows = (re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip())
    return {row[0]: row[1:] for row in rows}


def words(text):
    return " ".join(text.split())


# ------------------------------------------------------------------ the table on the terminal


def test_every_estimate_has_its_row():
    assert cells(printed(evaluation())) == {
        "estimator": ["value", "SE", "95% interval", "ESS", "share", "k-hat", "doubts"],
        "behaviour": ["20.31", "0.30", "19.71 to 20.91", "-", "-", "-"],
        "importance_sampling": [
            "25.20", "1.31", "22.58 to 27.82", "412", "41.2%", "0.93", "[1,2]",
        ],
        "per_decision": ["23.90", "0.42", "23.06 to 24.74", "412", "41.2%", "0.41"],
        "weighted_importance_sampling": [
            "24.10", "0.71", "22.68 to 25.52", "412", "41.2%", "0.41",
        ],
        "weighted_per_decision": ["23.41", "0.48", "22.45 to 24.37", "412", "41.2%", "0.41"],
        "direct_method": ["22.90", "0.05", "22.80 to 23.00", "-", "-", "-", "[3]"],
        "tabular_marginal": ["22.13", "0.20", "21.73 to 22.53", "9,000", "45.0%", "0.41", "[2]"],
    }  # fmt: skip


def test_the_behaviours_own_value_comes_first_and_set_apart():
    lines = printed(evaluation(SURE, BEHAVIOUR)).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("behaviour"))
    assert lines[place - 1].startswith("estimator")
    assert lines[place + 1].strip() == ""
    assert lines[place + 2].startswith("weighted_per_decision")


def test_it_says_what_was_evaluated():
    text = words(printed(evaluation()))
    assert text.startswith(
        "What the policy is worth in CartPole-v1 From 1,000 logged episodes (20,000 steps), "
        "discounted by 0.99 a step; 95% intervals by Student's t."
    )
    other = evaluation(
        environment=None, episodes=1, steps=1, discount=1.0, level=0.999, interval="my_interval"
    )
    assert words(printed(other)).startswith(
        "What the policy is worth From 1 logged episode (1 step), without discount; 99.9% "
        "intervals by my_interval."
    )
    assert "99.9% interval " in printed(other)


def test_every_interval_of_the_package_has_words():
    from reweigh.evaluation import intervals

    for name in said.INTERVALS:
        assert callable(getattr(intervals, name))
    assert len(said.INTERVALS) == 6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "log-probabilities were recorded when it acted."),
        (
            {"behaviour": "estimated by counts, 5-fold cross-fitted"},
            "were not recorded (estimated by counts, 5-fold cross-fitted): weights are only as good"
            " as that estimate.",
        ),
        ({"behaviour": "missing", "weight_histogram": ()}, "are missing: nothing can be weighed."),
        ({"weight_histogram": ()}, "are missing: nothing can be weighed."),
    ],
)
def test_it_says_where_the_log_probabilities_come_from(changes, expected):
    made = evaluation(**changes)
    assert expected in words(printed(made))
    assert expected in said.source_of_weights(made)


def test_each_doubt_is_said_once_and_numbered():
    text = printed(evaluation())
    assert [text.count(why) for why in (MEAN, K_HAT, MODEL)] == [1, 1, 1]
    for number, why in enumerate((MEAN, K_HAT, MODEL), start=1):
        assert f"[{number}] {why}" in text
    assert "An estimate with doubts should not be believed:" in text
    sure = printed(evaluation(BEHAVIOUR, SURE))
    assert "[1]" not in sure
    assert "should not be believed" not in sure


def test_what_was_left_out_comes_last_each_reason_once():
    text = printed(evaluation())
    assert text.rstrip().endswith("- doubly_robust, weighted_doubly_robust: there is one episode")
    assert "- kernel_marginal: observations are not numbers" in text
    assert "Left out" not in printed(evaluation(left_out={}))


def test_the_key_says_what_the_shares_are_of():
    assert "its share of the episodes (of the steps for tabular_marginal)." in words(
        printed(evaluation())
    )
    made = evaluation(BEHAVIOUR, SURE)
    assert "its share of the episodes. k-hat" in words(printed(made))
    assert "up to 0.67 their mean is reliable" in words(printed(made))
    few = replace(SURE, k_hat_threshold=0.17)
    assert "up to 0.17 for episodes, 0.67 for steps their mean" in said.key(
        evaluation(BEHAVIOUR, few, ESTIMATES[-1])
    )
    assert "is (none: the largest are alike, or too few); up" not in words(printed(made))
    tied = evaluation(BEHAVIOUR, replace(SURE, k_hat=INF))
    assert "is (none: the largest are alike, or too few); up" in words(printed(tied))
    assert "k-hat:" not in printed(evaluation(BEHAVIOUR))


@pytest.mark.parametrize("width", [60, 72, 80, 140])
def test_it_fits(width):
    crowded = evaluation(*ESTIMATES, replace(HUGE, method="balance_heuristic"), LOST, OPEN)
    for made in (evaluation(), crowded):
        text = printed(made, width)
        assert all(cell_len(line) <= width for line in text.splitlines())
        assert "…" not in text
        seen = "".join(text.split())
        for e in made.estimates.values():
            assert all(part in seen for part in e.method.split("_"))
            for figure in (numbers.figure(e.value, 2), *numbers.span(e, 2).split()):
                assert figure in seen
        assert "".join(said.verdict(made).split()) in seen


def test_a_terminal_of_80_columns_has_a_line_for_each_and_folds_a_long_name():
    rows = cells(printed(evaluation(), 80))
    assert rows["weighted_importance_"][0] == "24.10"
    assert rows["sampling"] == []
    assert rows["weighted_per_decision"][0] == "23.41"


def test_a_terminal_of_60_columns_has_the_name_above_the_figures():
    lines = printed(evaluation(), 60).splitlines()
    place = lines.index("weighted_importance_sampling")
    figures = ["24.10", "0.71", "22.68 to 25.52", "412", "41.2%", "0.41"]
    assert re.split(r"\s{2,}", lines[place + 1].strip()) == figures
    starts = {line.index("0.41") for line in lines if "0.41" in line}
    assert len(starts) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_ascii(encoding):
    made = evaluation(BEHAVIOUR, replace(SURE, method="λ_gewichtet"), environment="путь")
    text = printed(made, 80, encoding)
    assert "in ????" in text
    assert "20.31" in text
    if encoding == "ascii":
        assert "23.41 +/- 0.48" in words(text)


def test_nothing_is_coloured_where_nobody_sees_it():
    assert "\x1b" not in printed(evaluation())
    terminal = io.StringIO()
    environment = {"TERM": "xterm-256color", "NO_COLOR": "1"}
    console = Console(file=terminal, width=80, force_terminal=True, _environ=environment)
    print_evaluation(evaluation(), console)
    codes = re.findall(r"\x1b\[([\d;]*)m", terminal.getvalue())
    assert {c for code in codes for c in code.split(";")} <= {"", "0", "1", "2"}
    assert {c for code in codes for c in code.split(";")} >= {"1", "2"}  # bold, dim


def test_names_are_printed_as_they_are():
    made = evaluation(
        BEHAVIOUR, replace(SURE, method="[red]mine[/red]", warnings=("See [bold]this[/bold].",)),
        environment="[link]x", left_out={"a[b]": "[i]why"},
    )  # fmt: skip
    text = printed(made)
    for name in ("[red]mine[/red]", "See [bold]this[/bold].", "[link]x", "a[b]: [i]why"):
        assert name in text


def test_nan_infinity_and_huge_numbers_are_shown_as_such():
    rows = cells(printed(evaluation(BEHAVIOUR, HUGE, LOST, OPEN)))
    assert rows["importance_sampling"][:3] == ["1.20e+30", "3.00e+29", "6.00e+29 to 1.80e+30"]
    assert rows["per_decision"][:6] == ["-", "-", "-", "0", "0.0%", "none"]
    assert rows["truncated"][:3] == ["3.00", "inf", "-inf to inf"]


def test_a_single_episode_has_no_errors():
    text = printed(evaluation(ALONE, LOST, episodes=1))
    assert cells(text)["behaviour"] == ["7.000", "-", "-", "-", "-", "-"]
    assert "No estimate of the policy should be believed" in text
    assert "The behaviour's own value is 7.000." in words(text)


def test_hundreds_of_estimators():
    many = [estimate(f"mine_{i}", 20 + i / 50, 0.3, warnings=(f"Doubt {i}.",)) for i in range(300)]
    text = printed(evaluation(BEHAVIOUR, *many))
    assert cells(text)["mine_299"][-1] == "[300]"
    assert "[300] Doubt 299." in text


def test_without_any_estimate_of_the_policy():
    assert "There is no estimate of the policy." in printed(evaluation(BEHAVIOUR))
    assert "Look first at weighted_per_decision" in printed(evaluation(SURE))


# ------------------------------------------------------------------ what to look at first


def chosen(*estimates):
    found = said.first_look(evaluation(*estimates))
    return None if found is None else found.method


def test_the_first_look_is_the_believable_self_normalised_one_of_the_least_error():
    others = estimate("per_decision", 1.0, 0.1), estimate("truncated", 1.0, 0.01)
    pair = (
        estimate("weighted_importance_sampling", 1.0, 0.5),
        estimate("weighted_doubly_robust", 1.0, 0.4),
    )
    tempting = estimate("weighted_per_decision", 1.0, 0.2, warnings=(K_HAT,))
    assert chosen(BEHAVIOUR, *others, *pair, tempting) == "weighted_doubly_robust"
    assert chosen(BEHAVIOUR, *others, pair[0]) == "weighted_importance_sampling"
    assert chosen(BEHAVIOUR, *others, tempting) == "per_decision"
    assert chosen(BEHAVIOUR, others[1], tempting) == "truncated"
    assert chosen(BEHAVIOUR, tempting) is None
    assert chosen(BEHAVIOUR) is None
    assert chosen(BEHAVIOUR, estimate("per_decision", 1.0, NAN), others[1]) == "truncated"


def test_the_verdict_gives_the_reason():
    many = said.verdict(evaluation())
    assert many == (
        "Look first at weighted_per_decision, 23.41 ± 0.48: of the 2 believable self-normalised "
        "estimates, which a few heavy weights disturb least, it has the smallest standard error. "
        "Its 95% interval, 22.45 to 24.37, lies above the behaviour's, 19.71 to 20.91: the policy "
        "is better."
    )
    plain = estimate("per_decision", 23.0, 0.4)
    assert (
        "23.00 ± 0.40: of the 2 believable estimates it has the smallest standard error."
        in said.verdict(evaluation(BEHAVIOUR, plain, estimate("balance_heuristic", 22.0, 0.7)))
    )
    assert "it is the only believable estimate." in said.verdict(evaluation(BEHAVIOUR, plain))
    assert (
        "it is the only believable self-normalised estimate, which a few heavy weights disturb "
        "least." in said.verdict(evaluation(BEHAVIOUR, SURE, plain))
    )


@pytest.mark.parametrize(
    ("value", "where", "meaning"),
    [
        (22.0, "above", "lies above the behaviour's, 19.71 to 20.91: the policy is better."),
        (21.91, "overlaps", "overlaps the behaviour's, 19.71 to 20.91: no difference is shown."),
        (20.0, "overlaps", "overlaps the behaviour's, 19.71 to 20.91: no difference is shown."),
        (19.0, "overlaps", "overlaps the behaviour's, 19.71 to 20.91: no difference is shown."),
        (18.0, "below", "lies below the behaviour's, 19.71 to 20.91: the policy is worse."),
    ],
)
def test_the_verdict_compares_with_the_behaviour(value, where, meaning):
    e = estimate("per_decision", value, 0.5)
    made = evaluation(BEHAVIOUR, e)
    assert said.standing(made, e) == where
    assert said.verdict(made).endswith(meaning)


def test_the_verdict_is_hedged_where_it_must_be():
    estimated = {"behaviour": "estimated by counts"}
    assert said.verdict(evaluation(**estimated)).endswith(
        "the policy is better, as far as the estimated log-probabilities are right."
    )
    low = estimate("truncated", 10.0, 0.5)
    assert said.verdict(evaluation(BEHAVIOUR, low)).endswith(
        "lies below the behaviour's, 19.71 to 20.91, which shows nothing: it is an estimate from "
        "below."
    )
    assert said.verdict(evaluation(SURE)).endswith("Its 95% interval is 22.45 to 24.37.")
    assert said.standing(evaluation(ALONE, SURE), SURE) is None


def test_without_anything_to_believe_the_verdict_says_what_to_do():
    doubted = evaluation(BEHAVIOUR, HUGE)
    assert said.verdict(doubted) == (
        "No estimate of the policy should be believed, for the reasons given. More episodes would "
        "help, or a policy that is closer to the behaviour. The behaviour's own value is "
        "20.31 ± 0.30."
    )
    missing = evaluation(BEHAVIOUR, ESTIMATES[5], weight_histogram=(), ess_by_time=())
    assert "reweigh import LOG NEW_LOG --estimate-behaviour" in said.verdict(missing)


# ------------------------------------------------------------------ numbers


def test_decimals_are_two_figures_of_the_smaller_error():
    def decimals(*errors):
        pair = without_weights("behaviour", 20.0, errors[0]), estimate("per_decision", 1, errors[1])
        return said.decimals(evaluation(*pair))

    assert [decimals(0.3, x) for x in (0.31, 0.048, 0.1, 3e-9)] == [2, 3, 2, 6]
    assert decimals(4000.0, 1234.0) == 0
    assert decimals(0.0, 12.0) == 0
    assert said.decimals(evaluation(estimate("x", 0.0, NAN, warnings=(K_HAT,)))) == 2
    # Without errors, four figures of the smallest value.
    assert said.decimals(evaluation(ALONE)) == 3
    assert decimals(NAN, INF) == 3
    # What cannot be believed has no say in it, unless there is nothing else.
    assert said.decimals(evaluation(BEHAVIOUR, ESTIMATES[5])) == 2


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1234.567, 1, "1,234.6"), (-0.001, 2, "0.00"), (0.4, 0, "0"), (-12.3456, 3, "-12.346"),
        (1e7, 2, "1.00e+07"), (9_999_999.0, 0, "9,999,999"), (-1e300, 2, "-1.00e+300"),
        (1.234e-8, 6, "1.23e-08"), (1.234e-8, 2, "0.00"), (NAN, 2, "-"), (-INF, 2, "-inf"),
        (0.0, 6, "0.000000"),
    ],
)  # fmt: skip
def test_figures(value, decimals, text):
    assert numbers.figure(value, decimals) == text


@pytest.mark.parametrize(
    ("ess", "weights", "text"),
    [
        (412.3, 1000, ("412", "41.2%")), (12345.6, 20000, ("12,346", "61.7%")),
        (4.012, 16, ("4.01", "25.1%")), (0.0, 16, ("0", "0.0%")), (3.0, 0, ("3", "-")),
        (NAN, 0, ("-", "-")),
    ],
)  # fmt: skip
def test_effective_sample_sizes(ess, weights, text):
    assert numbers.size(estimate("x", 1.0, 1.0, effective_sample_size=ess, weights=weights)) == text


def test_an_error_is_never_rounded_to_nothing():
    assert numbers.error(0.0004, 2) == "4.0e-04"
    assert numbers.error(0.006, 2) == "0.01"
    assert numbers.error(0.0, 2) == "0.00"


# ------------------------------------------------------------------ JSON


def strictly(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_holds_everything():
    made = evaluation()
    read = strictly(evaluation_json(made))
    assert list(read["estimates"]) == list(made.estimates)
    one = read["estimates"]["importance_sampling"]
    assert one == json.loads(json.dumps(asdict(ESTIMATES[1]))) | {"believable": False}
    assert read["estimates"]["per_decision"]["believable"] is True
    assert read["left_out"] == dict(made.left_out)
    for name in (
        "environment", "episodes", "steps", "discount", "level", "interval", "behaviour",
    ):  # fmt: skip
        assert read[name] == getattr(made, name)
    assert read["weight_histogram"] == list(made.weight_histogram)
    assert read["weight_histogram_log10_range"] == [-4, 4]
    assert read["ess_by_time"] == list(made.ess_by_time)
    assert read["look_first"] == "weighted_per_decision"
    assert read["beside_behaviour"] == "above"


def test_json_has_null_for_what_is_no_number():
    read = strictly(evaluation_json(evaluation(BEHAVIOUR, HUGE, LOST, OPEN)))
    assert read["estimates"]["per_decision"]["value"] is None
    assert read["estimates"]["truncated"]["low"] is None
    assert read["estimates"]["importance_sampling"]["value"] == 1.2e30
    assert read["estimates"]["behaviour"]["k_hat"] is None
    assert read["look_first"] is read["beside_behaviour"] is None


# ------------------------------------------------------------------ the page


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


def test_the_doubts_are_on_the_page_once_and_where_they_are_referred_to(tmp_path):
    text = written(evaluation(), tmp_path / "page.html")
    for number, why in enumerate((MEAN, K_HAT, MODEL), start=1):
        assert text.count(html.escape(why)) == 1
        assert f'<li id="doubt-{number}">{html.escape(why)}</li>' in text
    assert "Pale ones should not be believed." in text
    sure = written(evaluation(BEHAVIOUR, SURE, left_out={}), tmp_path / "sure.html")
    assert not {"Doubts", "Left out", "Pale ones"} & set(
        re.findall(r"Doubts|Left out|Pale ones", sure)
    )


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


def test_the_page_needs_nothing_beside_itself(tmp_path):
    text = written(evaluation(), tmp_path / "page.html")
    page = Page(text)
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    assert {a or b for a, b in referred} <= set(page.ids)


def test_the_page_follows_the_system_into_the_dark(tmp_path):
    text = written(evaluation(), tmp_path / "page.html")
    drawings = text[text.index("<svg") : text.index("<h2>All estimates")]
    assert "var(--accent)" in drawings
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()


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


def test_hundreds_of_estimators_have_a_page(tmp_path):
    many = [estimate(f"mine_{i}", 20 + i / 50, 0.3, warnings=(f"Doubt {i}.",)) for i in range(200)]
    text = written(evaluation(BEHAVIOUR, *many), tmp_path / "page.html")
    assert text.count(">mine_150<") == 3  # two charts and the table
    heights = [float(h) for h in re.findall(r'viewBox="0 0 \d+ (\d+)"', text)]
    assert heights[0] > 200 * 20


# ------------------------------------------------------------------ charts


def axes():
    return Figure().add_subplot()


def intervals(painted):
    """Each place's line and point."""
    found = {}
    for line in painted.lines:
        x, y = np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()
        if len(x) == 2 and y[0] == y[1]:
            found.setdefault(y[0], {})["line"] = x
        elif line.get_marker() == "o":
            found.setdefault(y[0], {})["point"] = x[0]
        elif line.get_marker() in "<>":
            found.setdefault(y[0], {}).setdefault("arrows", "")
            found[y[0]]["arrows"] += line.get_marker()
    return found


def test_intervals_are_drawn_where_they_are():
    painted = axes()
    charts.estimates(painted, evaluation(), names_beside=True)
    drawn = intervals(painted)
    for place, e in enumerate(ESTIMATES):
        assert drawn[place]["point"] == e.value
        assert drawn[place]["line"] == [e.low, e.high]
        assert "arrows" not in drawn[place]
    assert [t.get_text() for t in painted.get_yticklabels()] == [e.method for e in ESTIMATES]
    assert painted.get_ylim()[0] > painted.get_ylim()[1]  # the first is on top
    reference = next(line for line in painted.lines if line.get_linestyle() == "--")
    assert list(reference.get_xdata()) == [BEHAVIOUR.value] * 2
    (band,) = painted.patches
    box = band.get_extents().transformed(painted.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((BEHAVIOUR.low, BEHAVIOUR.high))


def test_the_behaviour_has_another_colour_and_what_is_doubted_is_pale():
    painted = axes()
    charts.estimates(painted, evaluation(), names_beside=True)
    dots = {line.get_ydata()[0]: line for line in painted.lines if line.get_marker() == "o"}
    assert [to_rgba(dots[i].get_color()) == to_rgba(CONTRAST) for i in range(7)] == [True] + [
        False
    ] * 6
    assert to_rgba(dots[2].get_color()) == to_rgba(ACCENT)
    pale = [dots[i].get_alpha() < 1 for i in range(7)]
    assert pale == [not e.believable for e in ESTIMATES]
    bold = [t.get_text() for t in painted.get_yticklabels() if t.get_fontweight() == "bold"]
    assert bold == ["weighted_per_decision"]


def test_names_stand_above_their_lines_where_there_is_no_room_beside():
    painted = axes()
    charts.estimates(painted, evaluation(), names_beside=False)
    assert [(t.get_text(), t.xy[1]) for t in painted.texts] == [
        (e.method, i) for i, e in enumerate(ESTIMATES)
    ]
    assert not painted.get_yticks().size


def test_what_cannot_be_believed_does_not_crush_the_others():
    painted = axes()
    cheap = estimate("mine", -1e9, 1.0, warnings=(K_HAT,))
    charts.estimates(
        painted, evaluation(BEHAVIOUR, SURE, HUGE, OPEN, LOST, cheap), names_beside=True
    )
    left, right = painted.get_xlim()
    assert left < BEHAVIOUR.low and SURE.high < right
    assert right - left < 5 * (SURE.high - BEHAVIOUR.low)
    drawn = intervals(painted)
    assert drawn[2] == {"line": [right, right], "arrows": ">"}
    assert drawn[3] == {"line": [left, right], "arrows": "<>"}  # its value is left of the picture
    assert 4 not in drawn
    assert drawn[5] == {"line": [left, left], "arrows": "<"}


def test_a_doubted_interval_widens_the_picture_as_far_as_it_goes():
    a_little = estimate("mine", 26.0, 0.5, warnings=(K_HAT,))
    left, right = charts.extent([BEHAVIOUR, SURE, a_little])
    assert left == pytest.approx(19.71 - 0.04 * (27 - 19.71))
    assert right == pytest.approx(27 + 0.04 * (27 - 19.71))


def test_where_nothing_of_the_policy_can_be_believed_the_surest_of_it_is_seen():
    doubted = estimate("mine", 90.0, 0.5, warnings=(K_HAT,))
    left, right = charts.extent([BEHAVIOUR, doubted, HUGE])
    assert left < 19.71 and 91 < right < 200


def test_histogram_shows_shares_of_the_episodes_by_log10():
    painted = axes()
    charts.weight_histogram(painted, evaluation())
    drawn = painted.patches[0].get_data()
    assert drawn.values[[0, 19, 20]].tolist() == [0.1, 0.5, 0.4]
    assert drawn.edges[[0, 20, 40]].tolist() == [-4, 0, 4]


def test_effective_sample_size_over_time_is_logarithmic_if_it_falls_much():
    painted = axes()
    charts.effective_sample_size(painted, evaluation())
    assert painted.get_yscale() == "linear"
    assert list(painted.lines[0].get_ydata()) == list(evaluation().ess_by_time)
    assert list(painted.lines[0].get_xdata()) == list(range(30))
    assert painted.get_ylim()[0] == 0
    painted = axes()
    charts.effective_sample_size(painted, evaluation(ess_by_time=(1000.0, 30.0, 0.0)))
    assert painted.get_yscale() == "log"
    assert list(painted.lines[0].get_ydata())[:2] == [1000, 30]
    assert 0 < painted.lines[0].get_ydata()[2] < 1
    painted = axes()
    charts.effective_sample_size(painted, evaluation(ess_by_time=(12.0,)))
    assert painted.lines[0].get_marker() == "o"


# ------------------------------------------------------------------ end to end


def logged(episodes):
    """Two steps an episode; the second of two actions earns 1, and the behaviour takes it half."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, 2 * episodes)
    return rw.Trajectories(
        observations=np.tile([0, 1], episodes),
        actions=actions,
        rewards=actions + rng.normal(0, 0.1, 2 * episodes),
        log_prob_behaviour=np.full(2 * episodes, math.log(0.5)),
        lengths=np.full(episodes, 2),
        final_observations=np.zeros(episodes, dtype=np.int64),
        terminated=np.ones(episodes, dtype=bool),
        truncated=np.zeros(episodes, dtype=bool),
        policy_version=np.zeros(episodes, dtype=np.int64),
        episode=np.arange(episodes),
        seed=np.zeros(episodes, dtype=np.int64),
        time_start=np.zeros(episodes, dtype=np.int64),
    )


def test_from_a_log_to_the_table_and_the_page(page_of):
    policy = TabularPolicy([2], (), [2])
    with torch.no_grad():
        policy.logits[:, 1] = math.log(3)  # the better action in three of four
    found = rw.evaluate(logged(400), policy)
    text = words(printed(found))
    assert "From 400 logged episodes (800 steps), without discount" in text
    assert "lies above the behaviour's" in text
    assert strictly(evaluation_json(found))["beside_behaviour"] == "above"
    assert said.verdict(found) in page_of(found).texts
    first = said.first_look(found)
    assert first is not None and first.low < 1.5 < first.high
    assert sum(found.weight_histogram) == 400


# ------------------------------------------------------------------ in a browser


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_shows_the_page(tmp_path):
    from matplotlib.image import imread

    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    write_evaluation_page(evaluation(), page)
    shown = chromium(
        tmp_path / "profile", "--window-size=1200,1900", f"--screenshot={picture}", page.as_uri()
    )
    assert "CONSOLE" not in shown.stderr
    pixels = imread(picture)[..., :3]
    for colour in (ACCENT, CONTRAST):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        headline = pixels[200:700]
        assert (np.abs(headline - rgb).max(axis=-1) < 0.02).sum() > 300, colour


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_scrolls_only_down(tmp_path):
    made = evaluation(*ESTIMATES, HUGE, replace(OPEN, method="a_name_without_end" * 4))
    text = written(made, tmp_path / "page.html")
    widths = (320, 390, 768, 1440)
    frames = "".join(
        f'<iframe style="width:{width}px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for width in widths
    )
    measure = (
        "onload=()=>{document.title=JSON.stringify([...document.querySelectorAll('iframe')].map("
        "f=>f.contentDocument.documentElement.scrollWidth))}"
    )
    outside = tmp_path / "frames.html"
    outside.write_text(f"<!doctype html><script>{measure}</script>{frames}", encoding="utf-8")
    shown = chromium(tmp_path / "profile", "--dump-dom", outside.as_uri())
    measured = json.loads(html.unescape(re.search("<title>(.*?)</title>", shown.stdout)[1]))
    assert measured == list(widths)
