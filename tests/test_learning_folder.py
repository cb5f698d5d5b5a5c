"""What learning leaves in its folder, and that it is what learning returned."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from problems import alike, improvable

import reweigh as rw
from reweigh.acting.policy import build
from reweigh.data.policies import PolicyStore
from reweigh.learning.config import LearnConfig
from reweigh.learning.division import Shares
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
    kept = PolicyStore(tmp_path / "out" / "policies").load(1)
    assert torch.equal(kept["logits"], learnt.policy.state_dict()["logits"])


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
    for version, logit in ((None, 1.5), (0, 0.5), (1, 1.5)):
        policy, description = described_policy(tmp_path, version)
        assert description == DESCRIPTION
        assert policy.state_dict()["logits"][0, 0] == logit
    policy, description = described_policy("torch.nn:Identity")
    assert isinstance(policy, torch.nn.Identity)
    assert description is None
