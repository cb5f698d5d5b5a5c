import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from report_html import (
    Page,
    layout_in_chromium,
    needs_chromium,
    require_dark_side,
    require_seen_in_chromium,
    require_self_contained,
)
from report_runs import CONFIG, make_run, progress, solved_run

from reweigh.report import charts
from reweigh.report.run_page import write_report
from reweigh.report.svg import ACCENT, CONTRAST, draw, standalone

CHARTS = (
    "Effective sample size by age", "Mean weight by age", "Weights of the reused steps",
    "Effective sample size", "KL of each improvement", "Passes of each improvement", "Entropy",
    "Policy loss", "Value loss",
)  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    run = solved_run(tmp_path / "run", iterations=11)
    slow = make_run(
        tmp_path / "without-reuse",
        [progress(i) for i in range(14)],
        config=replace(CONFIG, reuse=1),
    )
    return run, slow


def read(run, compared=None):
    return Page(write_report(run, compared=compared).read_text(encoding="utf-8"))


def test_the_page_says_what_came_out(pair):
    run, slow = pair
    page = read(run, slow)
    assert (
        "475 reached after 1,408 steps; each step was used 73 times. "
        "Without reuse: 475 not reached in 1,792 steps."
    ) in page.texts
    assert page.terms["greedy return, mean of 100 episodes"] == "481.5"
    assert page.terms["environment steps, 33 episodes"] == "1,408"
    assert page.terms["each step was used"] == "73 times"
    assert page.terms["effective sample size at the end"] == "75%"
    assert page.terms["largest weight at the end"] == "12"
    assert page.terms["training time"] == "22 s"


def test_the_page_holds_every_setting(pair):
    page = read(pair[0])
    for name, value in asdict(CONFIG).items():
        shown = {"minutes": "none", "hidden": "64 64"}.get(name, str(value))
        assert page.terms[name] == shown, name


def test_every_chart_can_be_read_without_seeing_it(pair):
    page = read(*pair)
    drawings = [a for a in page.all("svg") if a.get("role") == "img"]
    labels = [a["aria-label"] for a in drawings]
    assert len(drawings) == len(CHARTS) + 2  # the headline is there for wide and narrow screens
    for heading in CHARTS:
        assert any(label.startswith(f"{heading}. ") for label in labels), heading
    assert "Weights of the reused steps. Largest weight 12." in labels
    assert "Effective sample size by age. Newest 97%, oldest 87%." in labels
    assert "Passes of each improvement. Last 40 of at most 40." in labels
    assert any("475 reached after 1,408 steps" in label for label in labels)


def test_the_page_needs_nothing_beside_itself_and_follows_the_system_into_the_dark(pair):
    text = write_report(pair[0], compared=pair[1]).read_text(encoding="utf-8")
    require_self_contained(text)
    require_dark_side(text, until="<h2>Settings")
    assert Page(text).all("meta")[1]["name"] == "viewport"


def test_the_same_run_gives_the_same_page(pair):
    assert (
        write_report(*pair[:1], compared=pair[1]).read_bytes()
        == write_report(pair[0], compared=pair[1]).read_bytes()
    )


def test_names_are_escaped(tmp_path):
    config = replace(CONFIG, environment='<b onclick="x">&amp;')
    run = make_run(tmp_path / "<i>run", [progress(0)], config=config)
    text = write_report(run, compared=None).read_text(encoding="utf-8")
    page = Page(text)
    assert {"b", "i"}.isdisjoint(tag for tag, _ in page.elements)
    assert page.terms["environment"] == '<b onclick="x">&amp;'
    assert f"reweigh · {run.path}" in page.texts


def test_a_run_of_one_iteration_has_a_page(tmp_path):
    unmeasured = replace(
        progress(0), training_return=None, evaluation_return=None, evaluation_episodes=0
    )
    config = replace(CONFIG, threshold=None, evaluation_episodes=0)
    page = read(make_run(tmp_path / "run", [unmeasured], config=config))
    assert "128 steps taken; each step was used 6.6 times." in page.texts


def test_a_run_without_an_iteration_is_told_how_to_go_on(tmp_path):
    run = make_run(tmp_path / "run", [])
    with pytest.raises(ValueError, match=re.escape(f"reweigh resume {run.path}")):
        write_report(run, compared=None)


def axes():
    return Figure().add_subplot()


def curves(painted):
    return {
        line.get_label(): (np.asarray(line.get_xdata()).tolist(), list(line.get_ydata()))
        for line in painted.lines
    }


def test_learning_curve_draws_the_returns_of_both_runs():
    history = [progress(i) for i in range(4)]
    slow = [progress(i) for i in range(6)]
    painted = axes()
    charts.learning_curve(painted, history, slow, threshold=475.0, legend_columns=2)
    drawn = curves(painted)
    assert drawn["greedy policy, with reuse"] == (
        [128, 256, 384, 512], [p.evaluation_return for p in history],
    )  # fmt: skip
    assert drawn["training episodes, with reuse"] == ([128, 384, 512], [10.0, 50.0, 70.0])
    assert drawn["greedy policy, without reuse"][0] == [128, 256, 384, 512, 640, 768]
    colours = {line.get_label(): line.get_color() for line in painted.lines}
    assert colours["greedy policy, with reuse"] == ACCENT
    assert colours["greedy policy, without reuse"] == CONTRAST
    assert [475.0, 475.0] in [values for _, values in drawn.values()]
    assert "threshold 475" in [text.get_text() for text in painted.texts]


def test_the_mark_stands_where_the_threshold_was_reached():
    history = [progress(i) for i in range(4)]
    painted = axes()
    charts.mark_reached(painted, history, 384, ACCENT, height=0.1)
    dot, vertical = painted.lines
    assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([384], [73.3])
    assert list(vertical.get_xdata()) == [384, 384]
    assert painted.texts[0].get_text() == "384 steps"


def test_weights_by_age_are_drawn_newest_first():
    now = progress(20)
    painted = axes()
    charts.ess_by_age(painted, now)
    assert painted.patches[0].get_data().values.tolist() == list(now.ess_by_age)
    assert painted.patches[0].get_data().edges[[0, -1]].tolist() == [-0.5, 20.5]
    painted = axes()
    charts.mean_weight_by_age(painted, now)
    reference, means = painted.lines
    assert list(reference.get_ydata()) == [1, 1]
    assert list(means.get_ydata()) == list(now.mean_weight_by_age)


def test_histogram_shows_shares_by_log10():
    counts = progress(0).weight_histogram
    painted = axes()
    charts.weight_histogram(painted, counts, ticks={-2: "≤ 0.01", 0: "1", 2: "≥ 100"}, label="w")
    shares, edges, _ = painted.patches[0].get_data()
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(28 / 128)
    (hill,) = np.flatnonzero(shares[1:]) + 1
    assert edges[[hill, hill + 1]] == pytest.approx([0, 0.1])
    assert (edges[0], edges[-1]) == (-2, 2)
    assert [t.get_text() for t in painted.get_xticklabels()] == ["≤ 0.01", "1", "≥ 100"]


def test_limits_are_drawn_where_they_are():
    history = [progress(i) for i in range(4)]
    painted = axes()
    charts.kl(painted, history, limit=0.03)
    assert [list(line.get_ydata()) for line in painted.lines] == [
        [p.kl for p in history], [0.03, 0.03],
    ]  # fmt: skip
    painted = axes()
    charts.ess(painted, history, least=0.1)
    assert [list(line.get_ydata()) for line in painted.lines] == [
        [p.ess for p in history], [0.1, 0.1],
    ]  # fmt: skip


def test_passes_are_told_apart_by_why_they_ended():
    history = [*map(progress, range(3)), replace(progress(3), ended_by="ess", epochs=5)]
    painted = axes()
    charts.epochs(painted, history)
    assert curves(painted) == {
        "all passes done": ([128, 384], [40, 40]),
        "KL limit": ([256], [17]),
        "ESS limit": ([512], [5]),
    }


def test_a_picture_alone_is_one_svg_file_that_reads_on_light_and_dark(pair):
    history = list(pair[0].metrics())

    def paint(axes):
        charts.mark_reached(axes, history, 1408, ACCENT, height=0.5)

    drawn = draw(paint, name="picture", label="A picture", width=300, height=200)
    text = standalone(drawn, width=300, height=200)
    assert Page(text).elements[0][1]["xmlns"] == "http://www.w3.org/2000/svg"
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-color-scheme:dark" in text
    assert '<rect width="100%" height="100%"' in text
    assert ">1,408 steps<" in text


@needs_chromium
def test_chromium_shows_the_page(pair, tmp_path):
    text = write_report(pair[0], compared=pair[1]).read_text(encoding="utf-8")
    require_seen_in_chromium(text, tmp_path)
    assert layout_in_chromium(text, tmp_path, (320, 390, 768, 1440)) == [
        [320, "none", "block"],
        [390, "none", "block"],
        [768, "block", "none"],
        [1440, "block", "none"],
    ]
