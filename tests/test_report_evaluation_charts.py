"""The charts of an evaluation: what is painted where."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from report_evaluations import (
    BEHAVIOUR,
    ESTIMATES,
    HUGE,
    K_HAT,
    LOST,
    OPEN,
    SURE,
    estimate,
    evaluation,
)

from reweigh.report import evaluation_charts as charts
from reweigh.report.svg import ACCENT, CONTRAST


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
