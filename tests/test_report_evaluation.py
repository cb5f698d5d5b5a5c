"""What a person sees of an evaluation on the terminal, and as JSON."""

import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from report_evaluations import (
    ALONE,
    BEHAVIOUR,
    ESTIMATES,
    HUGE,
    INF,
    K_HAT,
    LOST,
    MEAN,
    MODEL,
    NAN,
    OPEN,
    SURE,
    estimate,
    evaluation,
    without_weights,
)
from report_terminals import Terminal, words
from report_terminals import printed as printed_by
from rich.cells import cell_len

import reweigh as rw
from reweigh.acting.tabular import TabularPolicy
from reweigh.data.episodes import Unfinished
from reweigh.evaluation import intervals
from reweigh.report import evaluation_wording as said
from reweigh.report import wording
from reweigh.report.evaluation_table import evaluation_json, print_evaluation


def printed(made, width=100, encoding="utf-8"):
    return printed_by(lambda console: print_evaluation(made, console), width, encoding)


def cells(text):
    """The table's rows, each as its name and its figures."""
    table = text.split("\n\n", 1)[1].split("SE: standard error")[0]
    rows = (re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip())
    return {row[0]: row[1:] for row in rows}


# ------------------------------------------------------------------ the table on the terminal


def test_every_estimate_has_its_row_the_behaviours_own_value_first_and_set_apart():
    text = printed(evaluation())
    assert cells(text) == {
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
    lines = printed(evaluation(SURE, BEHAVIOUR)).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("behaviour"))
    assert lines[place - 1].startswith("estimator")
    assert lines[place + 1].strip() == ""
    assert lines[place + 2].startswith("weighted_per_decision")


def test_it_says_what_was_evaluated_and_how():
    text = words(printed(evaluation()))
    for part in ("CartPole-v1", "1,000 logged episodes (20,000 steps)", "0.99 a step", "95%"):
        assert part in text
    assert "recorded when it acted" in text
    estimated = evaluation(behaviour="estimated by counts, 5-fold cross-fitted")
    assert "not recorded (estimated by counts, 5-fold cross-fitted)" in words(printed(estimated))
    assert "are missing" in words(printed(evaluation(behaviour="missing", weight_histogram=())))
    assert all(callable(getattr(intervals, name)) for name in said.INTERVALS)


@pytest.mark.parametrize(
    ("unfinished", "note"),
    [
        (Unfinished(2, 31), "2 of 1,002 episodes (31 steps) have no end yet and are left out."),
        (Unfinished(1, 5), "1 of 1,001 episodes (5 steps) has no end yet and is left out."),
    ],
)
def test_unfinished_episodes_are_said_in_one_note(unfinished, note):
    made = evaluation(unfinished=unfinished)
    assert words(printed(made)).count(note) == 1
    assert strictly(evaluation_json(made))["unfinished"] == unfinished._asdict()
    assert strictly(evaluation_json(evaluation()))["unfinished"] == {"episodes": 0, "steps": 0}
    assert "no end yet" not in printed(evaluation())


def test_each_doubt_is_said_once_and_numbered_and_each_reason_to_leave_out():
    text = printed(evaluation())
    assert [text.count(why) for why in (MEAN, K_HAT, MODEL)] == [1, 1, 1]
    for number, why in enumerate((MEAN, K_HAT, MODEL), start=1):
        assert f"[{number}] {why}" in text
    assert text.rstrip().endswith("- doubly_robust, weighted_doubly_robust: there is one episode")
    assert "- kernel_marginal: observations are not numbers" in text
    sure = printed(evaluation(BEHAVIOUR, SURE, left_out={}))
    assert not re.search(r"\[1\]|should not be believed|Left out", sure)


def test_the_key_says_what_the_shares_are_of_and_up_to_which_k_hat_a_mean_is_reliable():
    assert "(of the steps for tabular_marginal)" in said.key(evaluation())
    made = evaluation(BEHAVIOUR, SURE)
    assert "of the steps" not in said.key(made)
    assert "up to 0.67" in said.key(made)
    few = replace(SURE, k_hat_threshold=0.17)
    mixed = said.key(evaluation(BEHAVIOUR, few, ESTIMATES[-1]))
    assert "0.17 for episodes, 0.67 for steps" in mixed
    assert "none:" not in said.key(made)
    assert "none:" in said.key(evaluation(BEHAVIOUR, replace(SURE, k_hat=INF)))
    assert "k-hat" not in said.key(evaluation(BEHAVIOUR))


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
            for figure in (wording.figure(e.value, 2), *said.span(e, 2).split()):
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
    terminal = Terminal()
    print_evaluation(evaluation(), terminal.console(TERM="xterm-256color", NO_COLOR="1"))
    codes = {c for m in re.findall(r"\x1b\[([\d;]*)m", terminal.sent()) for c in m.split(";")}
    assert {"1", "2"} <= codes <= {"", "0", "1", "2"}  # bold, dim


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
    assert rows["truncated_importance_sampling"][:3] == ["3.00", "inf", "-inf to inf"]
    text = printed(evaluation(ALONE, LOST, episodes=1))
    assert cells(text)["behaviour"] == ["7.000", "-", "-", "-", "-", "-"]


def test_hundreds_of_estimators():
    many = [estimate(f"mine_{i}", 20 + i / 50, 0.3, warnings=(f"Doubt {i}.",)) for i in range(300)]
    text = printed(evaluation(BEHAVIOUR, *many))
    assert cells(text)["mine_299"][-1] == "[300]"
    assert "[300] Doubt 299." in text


# ------------------------------------------------------------------ what to look at first


def chosen(*estimates):
    first = said.first_look(evaluation(*estimates))
    return None if first is None else first.method


def test_the_first_look_is_the_believable_self_normalised_one_of_the_least_error():
    bounded = "truncated_importance_sampling"
    others = estimate("per_decision", 1.0, 0.1), estimate(bounded, 1.0, 0.01)
    pair = (
        estimate("weighted_importance_sampling", 1.0, 0.5),
        estimate("weighted_doubly_robust", 1.0, 0.4),
    )
    tempting = estimate("weighted_per_decision", 1.0, 0.2, warnings=(K_HAT,))
    assert chosen(BEHAVIOUR, *others, *pair, tempting) == "weighted_doubly_robust"
    assert chosen(BEHAVIOUR, *others, pair[0]) == "weighted_importance_sampling"
    assert chosen(BEHAVIOUR, *others, tempting) == "per_decision"
    assert chosen(BEHAVIOUR, others[1], tempting) == bounded
    assert chosen(BEHAVIOUR, tempting) is None
    assert chosen(BEHAVIOUR) is None
    assert chosen(BEHAVIOUR, estimate("per_decision", 1.0, NAN), others[1]) == bounded


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
def test_the_verdict_names_the_estimate_and_compares_it_with_the_behaviour(value, where, meaning):
    e = estimate("per_decision", value, 0.5)
    made = evaluation(BEHAVIOUR, e)
    assert said.standing(made, e) == where
    assert said.verdict(made).startswith(f"Look first at per_decision, {value:.2f} ± 0.50")
    assert said.verdict(made).endswith(meaning)


def test_the_verdict_is_hedged_where_it_must_be():
    estimated = evaluation(behaviour="estimated by counts")
    assert said.verdict(estimated).endswith("as far as the estimated log-probabilities are right.")
    low = estimate("truncated_importance_sampling", 10.0, 0.5)
    assert "which shows nothing" in said.verdict(evaluation(BEHAVIOUR, low))
    assert said.verdict(evaluation(SURE)).endswith("Its 95% interval is 22.45 to 24.37.")
    assert said.standing(evaluation(ALONE, SURE), SURE) is None


def test_without_anything_to_believe_the_verdict_says_what_to_do():
    doubted = said.verdict(evaluation(BEHAVIOUR, HUGE))
    assert "More episodes would help" in doubted
    assert doubted.endswith("The behaviour's own value is 20.31 ± 0.30.")
    missing = evaluation(BEHAVIOUR, ESTIMATES[5], weight_histogram=(), ess_by_time=())
    assert "reweigh import LOG NEW_LOG --estimate-behaviour" in said.verdict(missing)
    assert "There is no estimate of the policy." in said.verdict(evaluation(BEHAVIOUR))


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
    assert wording.figure(value, decimals) == text


@pytest.mark.parametrize(
    ("ess", "weights", "text"),
    [
        (412.3, 1000, ("412", "41.2%")), (12345.6, 20000, ("12,346", "61.7%")),
        (4.012, 16, ("4.01", "25.1%")), (0.0, 16, ("0", "0.0%")), (3.0, 0, ("3", "-")),
        (NAN, 0, ("-", "-")),
    ],
)  # fmt: skip
def test_effective_sample_sizes(ess, weights, text):
    assert said.size(estimate("x", 1.0, 1.0, effective_sample_size=ess, weights=weights)) == text


def test_an_error_is_never_rounded_to_nothing():
    assert wording.error(0.0004, 2) == "4.0e-04"
    assert wording.error(0.006, 2) == "0.01"
    assert wording.error(0.0, 2) == "0.00"


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
    assert read["estimates"]["truncated_importance_sampling"]["low"] is None
    assert read["estimates"]["importance_sampling"]["value"] == 1.2e30
    assert read["estimates"]["behaviour"]["k_hat"] is None
    assert read["look_first"] is read["beside_behaviour"] is None


# ------------------------------------------------------------------ end to end


def logged(episodes):
    """Two steps an episode; the second of two actions earns 1, and the behaviour takes it half."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, 2 * episodes)
    zeros = np.zeros(episodes, dtype=np.int64)
    return rw.Trajectories(
        observations=np.tile([0, 1], episodes),
        actions=actions,
        rewards=actions + rng.normal(0, 0.1, 2 * episodes),
        log_prob_behaviour=np.full(2 * episodes, math.log(0.5)),
        lengths=zeros + 2,
        final_observations=zeros,
        terminated=zeros == 0,
        truncated=zeros == 1,
        policy_version=zeros,
        episode=np.arange(episodes),
        seed=zeros,
        time_start=zeros,
    )


def test_from_a_log_to_the_table():
    policy = TabularPolicy([2], (), [2])
    with torch.no_grad():
        policy.logits[:, 1] = math.log(3)  # the better action in three of four
    made = rw.evaluate(logged(400), policy)
    assert "400 logged episodes (800 steps), without discount" in words(printed(made))
    assert strictly(evaluation_json(made))["beside_behaviour"] == "above"
    first = said.first_look(made)
    assert first is not None and first.low < 1.5 < first.high
    assert sum(made.weight_histogram) == 400
