import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from report_runs import CONFIG, make_run, progress, solved_run
from rich.console import Console

from reweigh.report.summary import outcome, print_summary, summarise, write_summary
from reweigh.report.wording import callable_here, duration, number, times


def test_summary_json_holds_the_outcome(tmp_path):
    run = solved_run(tmp_path / "run", iterations=11)
    write_summary(run, summarise(run, "threshold"))
    written = json.loads((run.path / "summary.json").read_text())
    versions = {name: written.pop(name) for name in ("reweigh", "torch", "gymnasium")}
    assert all(versions.values())
    assert written == {
        "environment": "CartPole-v1",
        "seed": 7,
        "reuse": 32,
        "steps": 1408,
        "episodes": 33,
        "seconds": 22.0,
        "cpu_seconds": pytest.approx(17.6),
        "uses": pytest.approx(72.6, abs=1e-3),
        "threshold": 475.0,
        "steps_to_threshold": 1408,
        "final_return": 481.5,
        "final_return_episodes": 100,
        "ended_by": "threshold",
    }


def test_a_run_before_its_first_iteration_has_a_summary(tmp_path):
    summary = summarise(make_run(tmp_path / "run", []), "interrupt")
    assert (summary["steps"], summary["uses"], summary["final_return"]) == (0, 0.0, None)


def test_final_return_is_that_of_the_last_check(tmp_path):
    unchecked = replace(progress(3), evaluation_return=None, evaluation_episodes=0)
    run = make_run(tmp_path / "run", [progress(1), progress(2), unchecked])
    summary = summarise(run, "interrupt")
    assert (summary["final_return"], summary["final_return_episodes"]) == (pytest.approx(73.3), 10)


def test_outcome_in_words(tmp_path):
    reached = summarise(solved_run(tmp_path / "a", iterations=11), "threshold")
    history = [progress(i) for i in range(5)]
    missed = summarise(make_run(tmp_path / "b", history), "steps")
    no_threshold = summarise(
        make_run(tmp_path / "c", history, config=replace(CONFIG, threshold=None)), "steps"
    )
    assert outcome(reached, None) == "475 reached after 1,408 steps; each step was used 73 times."
    assert outcome(reached, missed) == (
        "475 reached after 1,408 steps; each step was used 73 times. "
        "Without reuse: 475 not reached in 640 steps."
    )
    assert outcome(no_threshold, None) == (
        "Return 135.3 after 640 steps; each step was used 33 times."
    )


@pytest.mark.parametrize(
    ("ended_by", "offered", "not_offered"),
    [
        ("threshold", "evaluate-run RUN --episodes 100", "resume"),
        ("steps", "resume RUN --steps 2816", "resume RUN\n"),
        ("interrupt", "resume RUN\n", "--steps"),
    ],
)
def test_printed_summary_names_places_and_next_commands(tmp_path, ended_by, offered, not_offered):
    run = solved_run(tmp_path / "my run", iterations=11)
    output = io.StringIO()
    console = Console(file=output, width=40)
    print_summary(run, summarise(run, ended_by), None, console)
    printed = output.getvalue().replace(f"'{run.path}'", "RUN")
    assert "CartPole-v1: 475 reached after 1,408 steps; each step was used 73 times." in printed
    assert "Greedy policy: 481.5, the mean of 100 uncounted episodes." in printed
    assert "1,408 steps, 33 episodes, 22 s (18 s of processor, checks aside)." in printed
    assert str(run.path / "report.html") in printed
    assert f"tensorboard --logdir '{run.path / 'tensorboard'}'" in output.getvalue()
    assert offered in printed
    assert not_offered not in printed
    assert "\x1b" not in printed


def test_summary_can_be_printed_where_the_encoding_lacks_a_letter(tmp_path):
    run = solved_run(tmp_path / "größe", iterations=2)
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    print_summary(run, summarise(run, "threshold"), None, console)
    assert b"gr??e" in raw.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1408, "1,408"), (475.0, "475"), (487.32, "487.3"), (0.78, "0.78"), (0.5, "0.5"),
     (-1114.62, "-1,114.6"), (-0.001, "0"), (100, "100"), (0.0, "0")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_durations_and_times():
    assert [duration(s) for s in (0.4, 59.4, 60, 3599, 3600, 7510)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 5 min",
    ]  # fmt: skip
    assert [times(u) for u in (1.0, 2.5, 95.4)] == ["once", "2.5 times", "95 times"]


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, reweigh, reweigh.report.run_page, reweigh.report.training_display,"
        " reweigh.report.tensorboard;"
        "print([m for m in ('matplotlib', 'tensorboard') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_program_that_is_not_on_the_path_is_called_by_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "reweigh").touch(0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "")
    assert callable_here("reweigh resume run") == "venv/bin/reweigh resume run"
    assert callable_here("tensorboard --logdir x") == "tensorboard --logdir x", "not here either"
    monkeypatch.setenv("PATH", str(folder))
    assert callable_here("reweigh resume run") == "reweigh resume run"
