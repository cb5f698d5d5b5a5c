import io
import math
import re
from dataclasses import replace

import pytest
from report_runs import CONFIG, make_run, progress
from report_terminals import Terminal, printed
from rich.cells import cell_len
from rich.console import Console

from reweigh.report.screen import Graphics
from reweigh.report.training_display import TrainingDisplay, line, time_left, title


def show(run, console, history):
    with TrainingDisplay(run, console) as display:
        for each in history:
            display.show(each)


def piped(run, history, **options):
    return printed(lambda console: show(run, console, history), **options)


def shown(run, history, *, width=80, encoding="utf-8", **environment):
    terminal = Terminal(encoding)
    show(run, terminal.console(width, **environment), history)
    return terminal


def test_a_pipe_gets_a_plain_line_an_iteration(tmp_path):
    run = make_run(tmp_path / "run", [])
    first, second, third = piped(run, [progress(0), progress(1)]).splitlines()
    assert first == f"CartPole-v1 reusing the steps of 32 policies, in {run.path}"
    assert second == (
        "steps 128/4,000  return 11.3  training 10  ESS 90%  max weight 2  KL 0.020  "
        "entropy 0.69  epochs 40 (epochs)  uses 7"
    )
    assert third == (
        "steps 256/4,000  return 42.3  ESS 88%  max weight 3  KL 0.031  "
        "entropy 0.67  epochs 17 (kl)  uses 13"
    )


def test_a_pipe_gets_no_control_codes_even_where_colour_is_forced(tmp_path):
    run = make_run(tmp_path / "run", [])
    text = piped(run, [progress(0)], FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b" not in text
    assert text.count("\n") == 2


def test_plain_lines_come_once_a_second_and_the_last_one_always(tmp_path):
    run = make_run(tmp_path / "run", [])
    fast = [replace(progress(i), seconds=0.4 * (i + 1)) for i in range(5)]
    steps = [text.split("/")[0] for text in piped(run, fast).splitlines()[1:]]
    assert steps == ["steps 128", "steps 512", "steps 640"]


def test_dropped_episodes_are_told(tmp_path):
    run = make_run(tmp_path / "run", [])
    dropped = replace(progress(0), dropped=("episode 17: [red]cable[/red] unplugged",))
    told = "dropped an episode: episode 17: [red]cable[/red] unplugged\n"
    assert told in piped(run, [dropped])
    terminal = shown(run, [dropped])
    assert told.strip() in terminal.sent()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_live_display_says_everything_and_fits(tmp_path, width):
    run = make_run(tmp_path / "run", [])
    terminal = shown(run, [progress(i) for i in range(12)], width=width)
    seen = terminal.screen()
    assert all(cell_len(text) <= width for text in seen.splitlines())
    words = " ".join(seen.split())
    assert "…" not in words
    for expected in (
        "1,536 of 4,000", "352.3 of 475", "230", "74%", "of 1,536 reused steps", "largest 13",
        "mean 1.00", "0.031 of 0.03", "KL limit, 17 of 40", "0.47", "79 times",
    ):  # fmt: skip
        assert all(word in words for word in expected.split()), expected
    if width >= 80:
        assert "at most 38 s left" in words
        assert "KL limit, 17 of 40" in words
        assert len(seen.splitlines()) <= 14


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_ascii(tmp_path, encoding):
    run = make_run(tmp_path / "путь", [])
    dropped = replace(progress(3), dropped=("episode 3: кабель",))
    terminal = shown(run, [*map(progress, range(3)), dropped], encoding=encoding)
    seen = terminal.screen()
    assert seen.isascii()
    assert "512 of 4,000" in seen
    assert "###" in seen


def test_no_color_leaves_no_colour(tmp_path):
    run = make_run(tmp_path / "run", [])
    terminal = shown(run, [progress(0)], TERM="xterm-256color", NO_COLOR="1")
    codes = re.findall(r"\x1b\[([\d;]*)m", terminal.sent())
    colours = {c for code in codes for c in code.split(";")} - {"", "0", "1", "2"}
    assert not colours


def test_a_resumed_run_shows_the_returns_before(tmp_path):
    history = [progress(i) for i in range(6)]
    run = make_run(tmp_path / "run", history)  # the loop has written the last one's line already
    terminal = shown(run, history[-1:])
    returns = next(t for t in terminal.screen().splitlines() if t.startswith("return"))
    assert len(re.findall("[▁▂▃▄▅▆▇█]", returns)) == 6


def test_without_checks_the_training_return_is_held_against_the_threshold(tmp_path):
    run = make_run(tmp_path / "run", [])
    unchecked = replace(progress(2), evaluation_return=None, evaluation_episodes=0)
    terminal = shown(run, [unchecked])
    assert "50 of 475" in terminal.screen()
    assert "greedy" not in terminal.screen()


@pytest.mark.parametrize(
    ("ess", "colour"), [(0.9, "32"), (0.5, "32"), (0.49, "33"), (0.1, "33"), (0.09, "31")]
)
def test_the_colour_of_the_effective_sample_size(tmp_path, ess, colour):
    run = make_run(tmp_path / "run", [])
    terminal = shown(run, [replace(progress(0), ess=ess)])
    row = [t for t in terminal.sent().splitlines() if "reused steps" in t][-1]
    assert set(re.findall(r"\x1b\[(3[1-3])m", row)) == {colour}


def test_an_error_while_training_passes_through(tmp_path):
    run = make_run(tmp_path / "run", [])
    for file in (Terminal(), io.StringIO()):
        console = Console(file=file, width=80, force_terminal=file.isatty())
        with pytest.raises(KeyboardInterrupt), TrainingDisplay(run, console):
            raise KeyboardInterrupt


def test_title_tells_the_compared_run_apart():
    assert title(CONFIG) == "CartPole-v1 reusing the steps of 32 policies"
    assert title(replace(CONFIG, reuse=1)) == "CartPole-v1 without reuse"


def test_time_left_is_that_of_the_last_ten_iterations():
    slow = [replace(progress(i), seconds=1000.0 + 2.0 * i) for i in range(12)]
    slow[0] = replace(slow[0], seconds=500.0)
    assert time_left(slow, CONFIG) == pytest.approx((4000 - 1536) * 2 / 128)
    assert time_left(slow[:1], CONFIG) == pytest.approx((4000 - 128) * 500 / 128)
    assert time_left(slow, replace(CONFIG, minutes=17.1)) == pytest.approx(1026 - 1022)
    assert time_left(slow, replace(CONFIG, minutes=17.0)) == 0
    assert time_left(slow, replace(CONFIG, steps=100)) == 0


def test_a_curve_spans_from_the_lowest_to_the_top():
    graphics = Graphics(20)
    assert graphics.curve([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert graphics.curve([0, 7], top=14) == "▁▅"
    assert Graphics(2, ascii_only=True).curve([0, 2, 12, 16]) == "_#"
    assert graphics.curve([3, 3]) == "▁▁"
    assert graphics.curve([], top=475) == ""
    assert graphics.curve([0, math.nan, 7, math.inf]) == "▁█"


def test_a_bar_is_full_at_one():
    assert Graphics(8, ascii_only=True).bar(0.5) == "####...."
    assert Graphics(4).bar(1.7) == "████"
    assert Graphics(4).bar(0.0) == "░░░░"


def test_line_leaves_out_what_was_not_measured():
    unmeasured = replace(progress(0), training_return=None, evaluation_return=None)
    assert line(unmeasured, CONFIG).startswith("steps 128/4,000  ESS 90%")
