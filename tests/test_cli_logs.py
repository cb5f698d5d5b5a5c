"""Commands around logs: import, export, evaluate, learn; what they print, write and refuse."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from reweigh.acting.policy import build, policy_of
from reweigh.data.log import TrajectoryLog
from reweigh.data.policies import PolicyStore


class Half(nn.Module):
    """Either of two actions, whatever it sees."""

    def forward(self, observations):
        return Categorical(torch.full((len(observations), 2), 0.5))


half = Half()


class Lean(nn.Module):
    """Either of two actions as often as it has learnt, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.lean = nn.Parameter(torch.zeros(2))

    def forward(self, observations):
        return Categorical(logits=self.lean.expand(len(observations), 2))


def learnable():
    """Makes a policy that can learn."""
    return Lean()


def not_a_policy():
    """Makes something that is none."""
    return 3


@pytest.fixture
def steps(reweigh):
    """A CSV file of 600 episodes in which action 1 pays, taken half of the time."""
    rng = np.random.default_rng(0)
    rows = ["episode,state,action,reward,log_prob,terminated,policy_version"]
    for episode in range(600):
        for step in range(3):
            action = int(rng.random() < 0.5)
            rows.append(
                f"{episode},{step},{action},{action + rng.normal(0, 0.1):.3f},{np.log(0.5):.9f},"
                f"{int(step == 2)},{episode % 2}"
            )
    Path("steps.csv").write_text("\n".join(rows))
    return Path("steps.csv")


@pytest.fixture
def log(reweigh, steps):
    code, out, err = reweigh("import", steps, "log")
    assert (code, err) == (0, "")
    assert "1,800 steps in 600 episodes" in out
    return Path("log")


def store(path, lean: float, versions=(0,)) -> Path:
    """Keep a policy that takes action 1 with the given log-odds, whatever it sees."""
    description = policy_of(TrajectoryLog.open("log").schema, ())
    for version in versions:
        policy = build(description)
        with torch.no_grad():
            policy.logits[-1].weight.zero_()
            policy.logits[-1].bias.copy_(torch.tensor([0.0, lean * version]))
        metadata = {"description": description}
        PolicyStore(path).save(version, policy.state_dict(), metadata=metadata)
    return Path(path)


def test_import_export_and_back(reweigh, log):
    assert reweigh("export", log, "episodes.parquet")[0] == 0
    assert reweigh("import", "episodes.parquet", "again")[0] == 0
    first, second = (TrajectoryLog.open(path).read() for path in ("log", "again"))
    assert first.rewards.tobytes() == second.rewards.tobytes()
    code, _, err = reweigh("import", "episodes.parquet", "again")
    assert (code, err.count("\n")) == (2, 1)
    assert "exists already" in err
    code, _, err = reweigh("import", "steps.csv", "third", "--format", "hdf5")
    assert code == 2
    assert not Path("third").exists()
    code, _, err = reweigh("export", "steps.csv", "x.parquet")
    assert code == 2
    assert "not a trajectory log" in err


def test_what_an_import_refuses_names_episode_and_step(reweigh, steps):
    lines = steps.read_text().splitlines()
    lines[5] = lines[5].replace("-0.693147181", "0.5")
    Path("broken.csv").write_text("\n".join(lines))
    code, out, err = reweigh("import", "broken.csv", "log")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "episode 1" in err
    assert "step 1" in err
    assert not Path("log").exists()


def test_estimated_behaviours_are_marked_and_calibrated(reweigh, steps):
    code, out, _ = reweigh(
        *("import", steps, "estimated", "--estimate-behaviour", "--log-prob-behaviour", ""),
        *("--behaviour-model", "counts"),
    )
    assert code == 0
    assert "estimated by counts" in out
    assert "calibration" in out
    log = TrajectoryLog.open("estimated")
    assert log.schema.estimated
    assert np.abs(log.read().log_prob_behaviour - np.log(0.5)).max() < 0.5
    code, _, err = reweigh("import", steps, "twice", "--estimate-behaviour")
    assert code == 2
    assert "nothing to estimate" in err


def test_inspect_says_what_is_in_a_log_and_how_old_it_is(reweigh, log):
    code, out, err = reweigh("inspect", log)
    assert (code, err) == (0, "")
    assert "1,800 in 600 episodes" in out
    code, out, _ = reweigh("inspect", log, "--policy", f"{__name__}:half", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["terminated"], found["unfinished"], found["notes"]) == (600, 0, [])
    assert found["lengths"]["mean"] == 3
    assert found["age"]["steps"]["ess_share"] == pytest.approx(1)
    policy = store("policies", 1.0, versions=(0, 1))
    _, out, _ = reweigh("inspect", log, "--policy", policy, "--version", 0, "--json")
    assert json.loads(out)["age"]["steps"]["ess_share"] == pytest.approx(1)
    _, out, _ = reweigh("inspect", log, "--policy", policy, "--json")
    assert json.loads(out)["age"]["steps"]["ess_share"] < 0.9
    code, _, err = reweigh("inspect", log, "--version", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "no --policy was given" in err


def test_evaluate_prints_a_table_json_and_a_page(reweigh, log):
    policy = store("policies", 0.5, versions=(0, 1))
    code, out, err = reweigh("evaluate", log, policy, "--page", "evaluation.html")
    assert (code, err) == (0, "")
    assert "weighted_per_decision" in out
    assert "balance_heuristic" in out, "the policies that sampled the log lie beside it"
    page = Path("evaluation.html").read_text()
    assert "policies" in page
    code, out, _ = reweigh(
        *("evaluate", log, policy, "--version", "0", "--json"),
        *("--method", "per-decision", "weighted_per_decision"),
    )
    found = json.loads(out)
    assert code == 0
    assert list(found["estimates"]) == ["per_decision", "weighted_per_decision"]
    mean = TrajectoryLog.open(log).read().rewards.sum() / 600
    assert found["estimates"]["per_decision"]["value"] == pytest.approx(mean, rel=1e-6)


class Appending(Half):
    """Appends the log's episodes to it again when it is first asked."""

    pending = True

    def forward(self, observations):
        if Appending.pending and len(observations) > 1:
            Appending.pending = False
            opened = TrajectoryLog.open("log")
            more = opened.read()
            opened.append(replace(more, episode=more.episode + 600))
        return super().forward(observations)


appending = Appending()


def test_what_is_appended_while_evaluate_reads_twice_is_not_read(reweigh, log):
    from reweigh.evaluation.evaluate import evaluate

    opened = TrajectoryLog.open(log)
    expected = evaluate(opened, half, held=1200)
    assert evaluate(opened, appending, held=1200) == expected
    assert TrajectoryLog.open(log).summary().episodes == 1200


def test_intervals_by_concentration_need_the_range_of_returns(reweigh, log):
    asked = ("evaluate", log, f"{__name__}:half", "--interval", "hoeffding", "--json")
    code, _, err = reweigh(*asked)
    assert code == 2
    assert "--return-range LOW HIGH" in err
    code, out, _ = reweigh(*asked, "--return-range", "-1", "4", "--maximum-weight", "2")
    found = json.loads(out)["estimates"]
    assert code == 0
    assert set(found) == {"behaviour", "truncated_importance_sampling"}
    code, _, err = reweigh(*asked, "--return-range", "-1", "4", "--method", "per-decision")
    assert (code, err.count("\n")) == (2, 1)
    assert "there are behaviour, truncated_importance_sampling" in err
    half = 10 * np.sqrt(np.log(40) / 1200)
    bounded = found["truncated_importance_sampling"]
    assert bounded["high"] - bounded["value"] == pytest.approx(half)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "nonsense"), "'nonsense' is not a method"),
        (("--level", "95"), "level must lie between 0 and 1"),
        (("--discount", "2"), "discount must lie in"),
        (("--version", "7"), "has no policy 7"),
        (("--method", "balance-heuristic"), "is not a method for this log"),
        (
            ("--method", "behaviour", "truncated_importance_sampling"),
            "sampling does not apply: an episode returned",
        ),
    ],
)
def test_what_evaluate_refuses(reweigh, log, words, said):
    policy = store("elsewhere", 0.5)
    code, _, err = reweigh("evaluate", log, policy, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("nowhere", "is no policy"),
        ("no_module:policy", "no module named 'no_module'"),
        ("test_cli_logs:nothing", "has no 'nothing'"),
        ("test_cli_logs:not_a_policy", "is int; a policy is a torch.nn.Module"),
        ("log", "holds no policy"),
    ],
)
def test_policies_that_are_none(reweigh, log, policy, said):
    code, _, err = reweigh("evaluate", log, policy)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_learn_shows_an_improvement_and_leaves_the_policy(reweigh, log):
    behaviour = store("behaviour", 0.0)
    code, out, err = reweigh("learn", log, "--behaviour", behaviour, "--out", "better")
    assert (code, err) == (0, "")
    assert "Improvement shown at 95 %" in out
    code, out, _ = reweigh("evaluate", log, "better", "--json", "--method", "weighted-per-decision")
    found = json.loads(out)["estimates"]["weighted_per_decision"]
    assert found["low"] > 1.6
    code, _, err = reweigh("learn", log, "--behaviour", behaviour, "--out", "better")
    assert code == 2
    assert "--out" in err


def test_learn_says_so_and_exits_with_3_where_there_is_nothing_to_gain(reweigh, steps):
    lines = [line.split(",") for line in steps.read_text().splitlines()]
    rng = np.random.default_rng(1)
    for line in lines[1:]:
        line[3] = f"{rng.normal():.3f}"
    Path("chance.csv").write_text("\n".join(",".join(line) for line in lines))
    assert reweigh("import", "chance.csv", "log")[0] == 0
    behaviour = store("behaviour", 0.0)
    code, out, _ = reweigh("learn", "log", "--behaviour", behaviour, "--out", "none", "--json")
    found = json.loads(out)
    assert code == 3
    assert not found["shown"]
    assert found["folder"] == "none"
    assert found["verdict"].startswith("no improvement shown at 95 %")
    assert PolicyStore("none/policies").versions() == [0]


def test_learning_from_a_module_of_ones_own_says_how_to_load_it(reweigh, log):
    code, out, err = reweigh("learn", log, "--behaviour", f"{__name__}:learnable", "--out", "own")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert "The policy is a module of your own, of which the folder keeps the state dict" in said
    assert '`module.load_state_dict(PolicyStore("own/policies").load(1))` loads it' in said
    module = learnable()
    module.load_state_dict(PolicyStore("own/policies").load(1))
    assert module.lean.detach()[1] > module.lean.detach()[0]


class Interrupting(Lean):
    """Is interrupted in the third of the epochs, which have four minibatches each."""

    passes = 0

    def forward(self, observations):
        Interrupting.passes += torch.is_grad_enabled()
        if Interrupting.passes > 8:
            raise KeyboardInterrupt
        return super().forward(observations)


def interrupting():
    """Makes a policy that is interrupted while it learns."""
    return Interrupting()


def test_an_interrupt_says_that_nothing_was_kept_and_leaves_nothing(reweigh, log):
    code, out, err = reweigh("learn", log, "--behaviour", f"{__name__}:interrupting")
    assert code == 130
    assert "epoch 2/100" in out
    assert "epoch 3/100" not in out
    assert err == "reweigh: interrupted; nothing was kept\n"
    assert not Path("runs").exists()


def test_a_display_that_is_interrupted_leaves_nothing(reweigh, log, monkeypatch):
    from reweigh.report.learning_display import LearningDisplay

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LearningDisplay, "show", interrupted)
    code, _, err = reweigh("learn", log, "--out", "gone")
    assert (code, err) == (130, "reweigh: interrupted; nothing was kept\n")
    assert not Path("gone").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(reweigh, log):
    code, out, err = reweigh("learn", log, "--out", "steps.csv/below")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written (Not a directory); choose another folder with --out" in err
    assert "epoch" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threads", "100000"), "threads is 100000; it must be at most"),
        (("--seed", "18446744073709551616"), "it must be at most 18446744073709551615"),
        (("--min-episode-ess", "0.999999"), "min_episode_ess is 0.999999, which leaves no room"),
    ],
)
def test_what_learn_refuses_leaves_nothing(reweigh, log, words, said):
    code, _, err = reweigh("learn", log, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not Path("runs").exists()


def test_learn_without_a_policy_estimates_one(reweigh, log):
    code, _, _ = reweigh("learn", log)
    assert code in (0, 3)
    assert Path("runs/steps-learnt-1/policies").is_dir()
    code, _, err = reweigh("learn", log, "--version", "1")
    assert (code, err.count("\n")) == (2, 1)
    assert "no --behaviour was given" in err
