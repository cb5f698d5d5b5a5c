"""What learning leaves in its folder, and that it is what learning returned."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import alike, improvable

import reweigh as rw
from reweigh.acting.policy import build
from reweigh.data.episodes import Shares
from reweigh.data.policies import PolicyStore
from reweigh.learning import folder as module
from reweigh.learning.config import LearnConfig
from reweigh.learning.folder import described_policy, learning_in

CONFIG = LearnConfig(estimator="weighted_per_decision", minibatches=1, epochs=12)
DESCRIPTION = json.dumps(
    {"kind": "tabular", "observation_choices": [6], "action_shape": [], "choices": [3]}
)


def log_of(problem, path, episodes=800):
    log = rw.TrajectoryLog.create(path, problem.schema)
    log.append(problem.sample(episodes, seed=0))
    return log


def drained(steps):
    progress = []
    while True:
        try:
            progress.append(next(steps))
        except StopIteration as done:
            return done.value, progress


def learnt_in(folder, problem, path, description=DESCRIPTION, **options):
    config = replace(CONFIG, discount=problem.discount, **options)
    policy = problem.behaviour_policy()
    return drained(
        learning_in(folder, log_of(problem, path), policy, config=config, description=description)
    )


def same(policy, other):
    return torch.equal(policy.state_dict()["logits"], other.state_dict()["logits"])


def test_an_improvement_is_the_newest_policy_of_the_folder(tmp_path):
    problem = improvable(horizon=5)
    learnt, progress = learnt_in(tmp_path / "out", problem, tmp_path / "log")
    assert learnt.shown
    assert same(rw.load_policy(tmp_path / "out"), learnt.policy)
    assert same(rw.load_policy(tmp_path / "out", 0), problem.behaviour_policy())
    assert same(rw.load_policy(tmp_path / "out" / "candidate"), learnt.policy)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(epoch) for epoch in progress]
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["learn"]["epochs"] == 12
    assert written["log"] == str(tmp_path / "log")


def test_without_one_the_newest_policy_is_what_it_began_with(tmp_path):
    problem = alike()
    learnt, _ = learnt_in(tmp_path / "out", problem, tmp_path / "log")
    assert not learnt.shown
    assert PolicyStore(tmp_path / "out" / "policies").versions() == [0]
    assert same(rw.load_policy(tmp_path / "out"), problem.behaviour_policy())


def test_what_was_tested_and_refused_is_kept_aside(tmp_path):
    problem = improvable(horizon=5)
    log = rw.TrajectoryLog.create(tmp_path / "log", problem.schema)
    sample = problem.sample(800, seed=0)
    test = np.repeat(Shares(CONFIG.validation, CONFIG.test, 0).part_of(sample.episode) == 2, 5)
    log.append(replace(sample, rewards=np.where(test, -1, 1) * sample.rewards))
    steps = learning_in(
        tmp_path / "out", log, problem.behaviour_policy(), config=CONFIG, description=DESCRIPTION
    )
    learnt, _ = drained(steps)
    assert not learnt.shown
    assert same(rw.load_policy(tmp_path / "out"), problem.behaviour_policy())
    assert same(rw.load_policy(tmp_path / "out" / "candidate"), learnt.candidate)


def test_an_estimated_behaviour_can_be_loaded(tmp_path):
    problem = improvable(horizon=5)
    log = log_of(problem, tmp_path / "log")
    learnt, _ = drained(learning_in(tmp_path / "out", log, config=replace(CONFIG, epochs=2)))
    assert learnt.start.estimated
    assert same(rw.load_policy(tmp_path / "out", 0), learnt.start.policy)


def test_the_policy_of_somebody_elses_module_is_kept_and_refused_by_its_name(tmp_path):
    problem = improvable(horizon=5)
    learnt, _ = learnt_in(tmp_path / "out", problem, tmp_path / "log", description=None)
    with pytest.raises(ValueError, match="policy kind 'TabularPolicy' is not one of"):
        rw.load_policy(tmp_path / "out")
    mine = problem.behaviour_policy()
    load = re.search(r"`(module.load_state_dict\(.*\))` loads it", learnt.notes[-1])
    assert load is not None
    eval(load[1], {"PolicyStore": PolicyStore, "module": mine})
    assert same(mine, learnt.policy)
    assert "of which the folder keeps the state dict alone" in learnt.notes[-1]


def test_a_policy_that_can_be_loaded_comes_without_such_a_note(tmp_path):
    learnt, _ = learnt_in(tmp_path / "out", improvable(horizon=5), tmp_path / "log", epochs=1)
    assert learnt.notes == ()


def test_what_is_there_already_is_not_touched(tmp_path):
    problem = improvable(horizon=5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        with pytest.raises(ValueError, match="there already; choose another folder with --out"):
            learnt_in(tmp_path / name, problem, tmp_path / f"log of {name}")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="cannot be written"):
        learnt_in(tmp_path / "file" / "below", problem, tmp_path / "log")


def test_the_folder_is_taken_before_anything_is_read(tmp_path, monkeypatch):
    problem = improvable(horizon=5)
    log = log_of(problem, tmp_path / "log")
    first = learning_in(tmp_path / "out", log, problem.behaviour_policy(), config=CONFIG)
    next(first)
    for _ in range(2):
        second = learning_in(tmp_path / "out", log, problem.behaviour_policy(), config=CONFIG)
        with pytest.raises(ValueError, match="there already; choose another folder with --out"):
            next(second)
    learnt, progress = drained(first)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(progress) + 1
    assert len(lines) == len(learnt.progress)
    monkeypatch.setattr(module, "learning", lambda *_, **__: pytest.fail("it was read"))
    (tmp_path / "file").write_text("mine")
    for name, said in (("out", "there already"), ("file/below", "cannot be written")):
        with pytest.raises(ValueError, match=said):
            next(learning_in(tmp_path / name, log, config=CONFIG))


def test_of_two_runs_that_find_a_folder_free_one_gets_it(tmp_path, monkeypatch):
    """The other makes it between the look and the taking."""
    problem = improvable(horizon=5)
    log = log_of(problem, tmp_path / "log")
    made = Path.mkdir

    def slow(self, *arguments, **options):
        made(self, *arguments, **options)
        if self.name == "out":
            (self / "config.json").write_text("the other's")

    monkeypatch.setattr(Path, "mkdir", slow)
    with pytest.raises(ValueError, match="there already; choose another folder with --out"):
        next(learning_in(tmp_path / "out", log, problem.behaviour_policy(), config=CONFIG))
    assert (tmp_path / "out" / "config.json").read_text() == "the other's"


@pytest.mark.parametrize("there", [False, True])
def test_what_is_interrupted_leaves_nothing(tmp_path, there):
    problem = improvable(horizon=5)
    log = log_of(problem, tmp_path / "log")
    folder = tmp_path / "new" / "out"
    if there:
        folder.mkdir(parents=True)
    steps = learning_in(folder, log, problem.behaviour_policy(), config=CONFIG)
    next(steps)
    assert (folder / "config.json").exists()
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert folder.exists() == there
    assert (tmp_path / "new").exists() == there
    assert not there or not any(folder.iterdir())
    steps = learning_in(folder, log, problem.behaviour_policy(), config=CONFIG)
    next(steps)
    (folder / "notes.txt").write_text("mine")
    steps.close()
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "metrics.jsonl", "notes.txt",
    }  # fmt: skip


def test_a_disk_that_fills_up_at_the_end_leaves_nothing(tmp_path, monkeypatch):
    problem = improvable(horizon=5)
    save = PolicyStore.save

    def full(self, version, *arguments, **options):
        if version == 1:
            raise OSError(28, "No space left on device")
        save(self, version, *arguments, **options)

    monkeypatch.setattr(PolicyStore, "save", full)
    with pytest.raises(OSError, match="No space left"):
        learnt_in(tmp_path / "out", problem, tmp_path / "log")
    assert not (tmp_path / "out").exists()


def test_where_there_is_nothing_to_learn_nothing_is_written(tmp_path):
    problem = improvable(horizon=5)
    log = rw.TrajectoryLog.create(tmp_path / "log", problem.schema)
    sample = problem.sample(400, seed=0)
    log.append(replace(sample, rewards=np.ones(sample.steps)))
    with pytest.raises(ValueError, match="nothing tells a better action"):
        drained(learning_in(tmp_path / "out", log, problem.behaviour_policy(), config=CONFIG))
    assert not (tmp_path / "out").exists()


def test_a_policy_comes_with_its_description_if_it_has_one(tmp_path):
    store = PolicyStore(tmp_path / "policies")
    for version, logit in enumerate((0.5, 1.5)):
        policy = build(DESCRIPTION)
        policy.logits.data.fill_(logit)
        store.save(version, policy.state_dict(), metadata={"description": DESCRIPTION})
        if version == 0:
            assert described_policy(tmp_path)[1] == DESCRIPTION
    with pytest.raises(ValueError, match=r"holds policies 0 to 1: say by --version .* the oldest"):
        described_policy(tmp_path)
    for version, logit in ((0, 0.5), (1, 1.5)):
        policy, description = described_policy(tmp_path, version)
        assert description == DESCRIPTION
        assert policy.state_dict()["logits"][0, 0] == logit
    policy, description = described_policy("torch.nn:Identity")
    assert isinstance(policy, torch.nn.Identity)
    assert description is None
