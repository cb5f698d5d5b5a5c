"""What a person sees of a log: tables, notes, JSON."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from test_evaluation_inspection import log, policy  # noqa: F401  (fixtures)

from reweigh.data.schema import MISSING
from reweigh.evaluation.inspection import inspection
from reweigh.report.inspection import inspection_json, notes, print_inspection


def printed(found, width=100):
    file = io.StringIO()
    print_inspection(found, Console(file=file, width=width), log="logs/mine")
    return [line.split() for line in file.getvalue().splitlines()]


def test_the_tables_hold_the_numbers(log, policy):  # noqa: F811
    lines = printed(inspection(log, policy))
    for line in (
        "logs/mine, of Small-v0",
        "steps 13 in 5 episodes",
        "episodes 3 terminated, 1 truncated, 1 without an end",
        "observations int64[], 2 choices",
        "policies version 3 (8 steps), version 7 (5 steps)",
        "behaviour log-probabilities recorded",
        "return 9.33 11 3 3 3 12.5 22",
        "steps 2.67 1.53 1 2 3 3.5 4",
        "steps of policy 3 8 6.4 80.0% none 1",
        "all steps 13 10.9 84.0% none 1.12",
        "whole episodes 3 2.65 88.4% none 1.06",
    ):
        assert line.split() in lines, line


def test_what_is_missing_is_said(log):  # noqa: F811
    found = inspection(log)
    assert list(notes(found)) == [
        "1 of 5 episodes (3 steps) has no end yet and is left out of the table of whole episodes.",
        "The first steps of 1 of 5 episodes are missing.",
    ]
    missing = replace(found, schema=replace(found.schema, behaviour=MISSING))
    assert "--estimate-behaviour" in next(notes(missing))
    estimated = replace(found, schema=replace(found.schema, behaviour="estimated by counts"))
    assert "estimated" in next(notes(estimated))
    assert "estimated by counts" in " ".join(" ".join(line) for line in printed(estimated))


def test_of_many_policies_a_few_are_shown_the_first_and_the_last_among_them(log, policy):  # noqa: F811
    found = inspection(log, policy)
    assert found.age is not None
    readings = dict.fromkeys(range(100), found.age.steps)
    many = replace(
        found,
        age=replace(found.age, steps_by_version=readings),
        steps_by_version={v: 64 + v for v in readings},
    )
    lines = printed(many)
    shown = [int(line[3]) for line in lines if line[:3] == ["steps", "of", "policy"]]
    assert (len(shown), shown[0], shown[-1]) == (12, 0, 99)
    assert [
        "policies",
        "100,",
        "versions",
        "0",
        "to",
        "99,",
        "64",
        "to",
        "163",
        "steps",
        "each",
    ] in lines


@pytest.mark.parametrize("width", [60, 80])
def test_it_fits(log, policy, width):  # noqa: F811
    file = io.StringIO()
    print_inspection(inspection(log, policy), Console(file=file, width=width), log="logs/mine")
    assert max(map(len, file.getvalue().splitlines())) <= width
    assert "…" not in file.getvalue()


def test_json_holds_everything(log, policy):  # noqa: F811
    read = json.loads(inspection_json(inspection(log, policy)))
    assert read["schema"]["environment"] == "Small-v0"
    assert read["steps_by_version"] == {"3": 8, "7": 5}
    assert read["returns"]["median"] == 3
    assert read["age"]["steps_by_version"]["3"]["ess_share"] == pytest.approx(0.8)
    assert read["age"]["episodes"]["sample_size"] == 3
    assert len(read["notes"]) == 2
