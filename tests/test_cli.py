"""The command line as a person meets it: what it prints, leaves behind and exits with."""

import errno
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scripted  # registers the environments
import torch

from reweigh import load_policy
from reweigh.acting.evaluate import evaluate, greedy
from reweigh.cli import COMMANDS, logs, sources
from reweigh.data.importing import READERS
from reweigh.data.log import TrajectoryLog
from reweigh.evaluation import intervals
from reweigh.train.run import Run
from reweigh.verify.golden import SHIPPED

QUICK = [
    *("--steps", "150", "--iteration-steps", "50", "--environments", "2", "--epochs", "2"),
    *("--hidden", "8", "--evaluation-episodes", "2", "--check-every", "50"),
]


def test_train_leaves_a_run_that_everything_else_reads(reweigh):
    code, out, err = reweigh("train", "CartPole-v1", *QUICK)
    assert (code, err) == (0, "")
    assert "runs/CartPole-v1-1/report.html" in out
    path = Path("runs/CartPole-v1-1")
    summary = json.loads((path / "summary.json").read_text())
    assert summary["environment"] == "CartPole-v1"
    assert summary["seed"] == 0
    assert summary["steps"] == 150
    assert summary["steps_to_threshold"] is None
    assert summary["episodes"] == (TrajectoryLog.open(path / "log").read().terminated).sum()
    assert summary["seconds"] > 0
    assert summary["cpu_seconds"] > 0
    assert list((path / "tensorboard").glob("events*"))
    assert "CartPole-v1" in (path / "report.html").read_text()

    code, out, _ = reweigh("evaluate-run", path, "--episodes", "3", "--seed", "5")
    returns = evaluate(load_policy(path), "CartPole-v1", episodes=3, seed=5)
    assert code == 0
    assert f"mean return {returns.mean():.2f}" in out
    assert f"highest {returns.max():.2f}" in out

    for log in (path, path / "log"):
        code, out, err = reweigh("inspect", log, "--policy", path)
        assert (code, err) == (0, "")
        assert "150 in" in out
        assert "all steps" in out

    (path / "report.html").unlink()
    code, out, _ = reweigh("report", path)
    assert (code, out.strip()) == (0, str(path / "report.html"))
    assert (path / "report.html").exists()

    code, out, _ = reweigh("train", "CartPole-v1", *QUICK)
    assert "runs/CartPole-v1-2" in out, "a second run has a folder of its own"


def test_a_longer_limit_goes_on_as_if_it_had_been_there_at_once(reweigh):
    reweigh("train", "CartPole-v1", *QUICK, "--out", "short")
    code, _, _ = reweigh("resume", "short", "--steps", 250)
    assert code == 0
    reweigh("train", "CartPole-v1", *QUICK, "--out", "long", "--steps", 250)
    short, long = Run.open("short"), Run.open("long")
    assert short.policies.latest() == long.policies.latest() == 5
    a, b = short.policies.load(5), long.policies.load(5)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_has_reached_its_threshold_goes_on_to_a_higher_one(reweigh):
    reweigh("train", "CartPole-v1", *QUICK, "--threshold", "5", "--out", "run")
    assert json.loads(Path("run/summary.json").read_text())["steps_to_threshold"] == 50
    code, _, err = reweigh("resume", "run", "--steps", 200)
    assert code == 2
    assert "--threshold" in err
    code, _, _ = reweigh("resume", "run", "--threshold", "inf")
    assert code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["steps"], summary["steps_to_threshold"]) == (150, None)


def test_compare_trains_the_same_learner_without_reuse(reweigh):
    code, out, _ = reweigh("train", "CartPole-v1", *QUICK, "--compare", "--out", "run")
    assert code == 0
    assert "Without reuse" in out
    with_reuse, without = Run.open("run"), Run.open("run/without-reuse")
    assert without.config.reuse == 1
    assert with_reuse.config.reuse == 32
    assert [p.reused_steps for p in with_reuse.metrics()] == [50, 100, 150]
    assert [p.reused_steps for p in without.metrics()] == [50, 50, 50]
    assert "ithout reuse" in Path("run/report.html").read_text()
    first = [run.log.read(first_version=0).select(slice(0, 2)) for run in (with_reuse, without)]
    np.testing.assert_array_equal(first[0].observations, first[1].observations)


def test_an_environment_of_ones_own_is_found_beside_the_user(reweigh, tmp_path):
    source = (Path(__file__).parent / "scripted.py").read_text()
    own = source.replace("{_class.__name__}", "My{_class.__name__}")
    (tmp_path / "my_own_envs.py").write_text(own)
    code, _, err = reweigh("train", "my_own_envs:MyCounting-v0", *QUICK)
    assert (code, err) == (0, "")
    code, out, _ = reweigh("evaluate-run", "runs/MyCounting-v0-1", "--episodes", "4")
    assert code == 0
    assert "my_own_envs:MyCounting-v0" in out


def test_what_the_policy_does_greedily_is_its_most_likely_action(reweigh):
    reweigh("train", "Pendulum-v1", *QUICK, "--out", "run")
    policy = load_policy("run")
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = greedy(policy, observations)
    distribution = policy(torch.from_numpy(observations))
    best = distribution.log_prob(torch.from_numpy(actions))
    for _ in range(20):
        assert (distribution.log_prob(distribution.sample()) <= best).all()


def one_line(err):
    return err.startswith("reweigh: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "CartPol-v1"], "Did you mean: `CartPole`"),
        (["train", "no_such_module:Thing-v0"], "no module named 'no_such_module'"),
        (["train", "WholeNumberActions-v0"], "supported: Box of floating point"),
        (["train", "CartPole-v1", "--epochs", "0"], "epochs is 0"),
        (["train", "CartPole-v1", "--out", "/proc/nowhere/run"], "choose another folder"),
        (["train", "CartPole-v1", "--out", __file__], "choose another folder"),
        (["train", "AlwaysRaising-v0", *QUICK], "OSError: cable unplugged"),
        (["train", "InfiniteReward-v0", *QUICK], "rewards: inf in episode"),
        (["resume", "nothing-here"], "is not a run"),
        (["evaluate-run", "nothing-here"], "is not a run"),
        (["report", "nothing-here"], "is not a run"),
        (["report", "two\nlines"], "two lines is not a run"),
        (["verify", "nothing-here.json"], "nothing-here.json"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(reweigh, arguments, message):
    code, _, err = reweigh(*arguments)
    assert code == 2, err
    assert message in err
    assert one_line(err), err


def test_an_unknown_option_exits_with_2(reweigh):
    code, _, _ = reweigh("train", "CartPole-v1", "--stepps", "3")
    assert code == 2


def test_an_infinite_reward_loses_nothing(reweigh):
    reweigh("train", "Counting-v0", *QUICK, "--out", "run")
    before = Run.open("run").log.read()
    config = Path("run/config.json")
    config.write_text(config.read_text().replace("Counting-v0", "InfiniteReward-v0"))
    code, _, err = reweigh("resume", "run", "--steps", 300)
    assert code == 2
    assert "Counting-v0" in err, "the log is of another environment"
    after = Run.open("run").log.read()
    np.testing.assert_array_equal(before.rewards, after.rewards)


def test_dropped_episodes_are_said_and_the_run_goes_on(reweigh):
    code, out, _ = reweigh("train", "Raising-v0", *QUICK, "--out", "run")
    assert code == 0
    said = re.findall(r"episode (\d+) dropped at step 2: .*RuntimeError: the arm fell off", out)
    assert said
    assert not set(map(int, said)) & set(Run.open("run").log.read().episode.tolist())


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(reweigh, monkeypatch):
    append = TrajectoryLog.append
    left = [2]

    def until_full(log, trajectories):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(log.path))
        left[0] -= 1
        append(log, trajectories)

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryLog, "append", until_full)
        code, _, err = reweigh("train", "CartPole-v1", *QUICK, "--out", "run")
    assert code == 1
    assert one_line(err)
    assert "No space left on device" in err
    assert "reweigh resume run" in err
    assert reweigh("resume", "run")[0] == 0
    assert Run.open("run").log.summary().steps == 150


@pytest.mark.parametrize("name", ["log", "policies", "checkpoint.safetensors", "config.json"])
def test_a_damaged_file_is_one_line(reweigh, name):
    reweigh("train", "CartPole-v1", *QUICK, "--out", "run")
    path = Path("run") / name
    if path.is_dir():
        path = max(p for p in path.rglob("*") if p.suffix in (".parquet", ".safetensors"))
    path.write_bytes(path.read_bytes()[:-20])
    code, _, err = reweigh("resume", "run", "--steps", 300)
    assert code == 2
    assert one_line(err), err
    assert path.name in err


def test_a_diverged_policy_is_one_line_and_the_run_is_whole(reweigh):
    code, _, err = reweigh("train", "CartPole-v1", *QUICK, "--learning-rate", "1e30", "--out", "r")
    assert code == 2
    assert one_line(err), err
    assert "smaller learning rate" in err
    assert all(p.isfinite().all() for p in load_policy("r").parameters())


def test_interrupting_says_how_to_go_on(reweigh):
    scripted.Interrupting.steps_left = 120
    code, out, err = reweigh("train", "Interrupting-v0", *QUICK, "--out", "run")
    assert code == 130
    assert err == ""
    assert "reweigh resume run" in out
    assert json.loads(Path("run/summary.json").read_text())["ended_by"] == "interrupt"
    assert reweigh("resume", "run")[0] == 0
    assert reweigh("train", "Interrupting-v0", *QUICK, "--out", "other")[0] == 0
    a, b = load_policy("run").state_dict(), load_policy("other").state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_interrupting_before_the_first_iteration_is_calm(reweigh):
    scripted.Interrupting.steps_left = 0
    code, out, err = reweigh("train", "Interrupting-v0", *QUICK, "--out", "run")
    assert (code, err) == (130, "")
    assert "reweigh resume run" in out


def test_verify_proves_the_installation_in_json_too(reweigh, tmp_path):
    golden = json.loads(SHIPPED.read_text())
    golden["problems"] = golden["problems"][:1]
    small = tmp_path / "small.json"
    small.write_text(json.dumps(golden))
    code, out, _ = reweigh("verify", small, "--json")
    assert code == 0
    rows = json.loads(out)
    assert {"problem", "estimator", "errors", "declared"} <= set(rows[0])
    golden["problems"][0]["batch_results"]["seed"]["loss"] += 1e-6
    small.write_text(json.dumps(golden))
    code, out, _ = reweigh("verify", small)
    assert code == 1
    assert "seed" in out


def modules_after(code):
    """The packages that a fresh interpreter has loaded after running some code."""
    ended = f"import sys\ntry:\n    {code}\nfinally:\n    print('', *sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", ended], capture_output=True, text=True)
    return done.stdout, {name.partition(".")[0] for name in done.stderr.split()}


def test_the_mathematics_loads_only_torch_and_numpy():
    _, modules = modules_after("import reweigh; reweigh.recipes; reweigh.recommend")
    assert {"torch", "numpy"} <= modules
    assert not modules & {
        *("gymnasium", "deltalake", "pyarrow", "tyro", "rich", "tensorboard", "matplotlib"),
        *("safetensors", "pandas", "scipy"),
    }


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)])
def test_help_does_without_torch(words):
    code = f"sys.argv = ['reweigh', *{words}]; from reweigh.cli import main; main()"
    out, modules = modules_after(code)
    assert not modules & {"torch", "pyarrow", "scipy", "matplotlib", "gymnasium"}
    expected = [version("reweigh")]
    if words[-1] == "--help":
        expected = COMMANDS if words == ["--help"] else [f"usage: reweigh {words[0]}"]
    assert all(name in out for name in expected), out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, ""),
        (["trian"], 2, "there is no command 'trian'; try `reweigh train`"),
        (["xyz"], 2, "there is no command 'xyz'; try `reweigh --help`"),
        (["-h"], 0, ""),
    ],
)
def test_without_a_command_there_is_the_overview(reweigh, words, status, message):
    code, out, err = reweigh(*words)
    assert code == status
    assert message in err
    assert ("evaluate-run" in out) == (not message)


@pytest.mark.parametrize("spelling", ["bias-corrected-bootstrap", "bias_corrected_bootstrap"])
def test_choices_are_spelled_either_way(reweigh, spelling):
    _, _, err = reweigh("evaluate", "nowhere", "nowhere", "--interval", spelling)
    assert "nowhere is not a trajectory log" in err
    code, _, err = reweigh("evaluate", "nowhere", "nowhere", "--interval", "bias-corrected")
    assert code == 2
    assert "bias_corrected_bootstrap" in err


def test_the_choices_of_options_are_what_python_has():
    assert set(get_args(sources.Format)) == set(READERS)
    assert all(callable(getattr(intervals, name)) for name in get_args(logs.IntervalName))
