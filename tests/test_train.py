"""Training: a seed gives the same bits, whatever happens in between, and CartPole is solved."""

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import scripted  # noqa: F401  (registers the environments)
import torch

from reweigh.acting.stored import load_policy
from reweigh.data.batch import Batch
from reweigh.data.trajectories import Trajectories
from reweigh.train.config import TrainConfig
from reweigh.train.improve import improve
from reweigh.train.learner import Learner
from reweigh.train.loop import train
from reweigh.train.run import Run
from reweigh.train.start import collect_here, new_run
from reweigh.train.suited import DISCRETE

SMALL = {
    "environment": "CartPole-v1",
    "steps": 600,
    "seed": 3,
    "reuse": 3,
    "iteration_steps": 60,
    "environments": 2,
    "epochs": 3,
    "minibatches": 2,
    "hidden": (8,),
    "evaluation_episodes": 2,
}


def start(path, **options):
    return new_run(path, TrainConfig(**{**SMALL, **options}))


def finish(run, **options):
    return list(train(run, collect_here(run), **options))


def assert_same(a, b):
    """Two runs have the same policies, log, learner and metrics, clocks aside."""
    assert a.policies.versions() == b.policies.versions()
    for version in a.policies.versions():
        x, y = a.policies.load(version), b.policies.load(version)
        assert all(torch.equal(x[name], y[name]) for name in x)
    x, y = a.log.read(), b.log.read()
    for name in Trajectories.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(x, name), getattr(y, name))
    (x, x_state), (y, y_state) = a.load_checkpoint(), b.load_checkpoint()
    assert all(torch.equal(x_state[name], y_state[name]) for name in x_state)
    assert without_clocks(x) == without_clocks(y)
    assert [without_clocks(p) for p in a.metrics()] == [without_clocks(p) for p in b.metrics()]


def without_clocks(record):
    return {k: v for k, v in asdict(record).items() if k not in ("seconds", "cpu_seconds")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = start(tmp_path_factory.mktemp("uninterrupted") / "run")
    finish(run)
    return run


def test_a_seed_gives_the_same_bits(uninterrupted, tmp_path):
    torch.manual_seed(99)  # the global random state plays no part
    again = start(tmp_path / "run")
    finish(again)
    assert_same(uninterrupted, again)
    other = start(tmp_path / "other", seed=4)
    finish(other)
    version = other.policies.latest()
    x, y = other.policies.load(version), uninterrupted.policies.load(version)
    assert any(not torch.equal(x[name], y[name]) for name in x)


def test_the_log_holds_every_step_once_with_the_policy_that_took_it(uninterrupted):
    t = uninterrupted.log.read()
    checkpoint, _ = uninterrupted.load_checkpoint()
    assert t.steps == checkpoint.steps >= SMALL["steps"]
    keys = list(zip(t.episode.tolist(), t.time_start.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert (np.bincount(np.repeat(t.policy_version, t.lengths)) >= SMALL["iteration_steps"]).all()
    for version in (0, 5):
        mine = t.select(t.policy_version == version)
        policy = uninterrupted.load_policy(version)
        again = policy(torch.from_numpy(mine.observations)).log_prob(torch.from_numpy(mine.actions))
        np.testing.assert_allclose(
            mine.log_prob_behaviour, again.detach().numpy(), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"steps": 300, "first_steps": 1000}, [256, 320]),  # an episode of Pendulum takes 200 steps
        ({"steps": 300, "first_steps": 100}, [128, 192, 256, 320]),
        ({"steps": 100, "first_steps": 1000}, [128]),
        ({"steps": 100}, [64, 128]),
    ],
)
def test_nothing_is_learnt_until_an_episode_has_ended(options, expected, tmp_path):
    pendulum = {"environment": "Pendulum-v1", "environments": 1, "iteration_steps": 64}
    run = start(tmp_path / "run", **pendulum, **options)
    assert [progress.steps for progress in finish(run)] == expected
    versions = run.log.read().in_episode_order()
    taken = np.bincount(np.repeat(versions.policy_version, versions.lengths))
    assert taken.cumsum().tolist() == expected


def test_a_run_stopped_between_iterations_goes_on_exactly(uninterrupted, tmp_path):
    start(tmp_path / "run")
    for stop_after in (1, 2, 4, 100):
        run = Run.open(tmp_path / "run")
        for _, _ in zip(range(stop_after), train(run, collect_here(run)), strict=False):
            pass
    assert_same(uninterrupted, Run.open(tmp_path / "run"))


def live(path, kill_at):
    """Go on with a run, and die at the `kill_at`-th moment at which it touches its folder."""
    seen = 0

    def watch(event, arguments):
        nonlocal seen
        if event in ("open", "os.rename", "os.mkdir") and str(path) in str(arguments[0]):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    finish(Run.open(path))


def live_until(path, cpu_seconds):
    """Go on with a run, and die wherever it is after so much processor time."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    finish(Run.open(path))


def test_a_run_killed_at_any_moment_and_resumed_is_the_same(uninterrupted, tmp_path):
    path = tmp_path / "run"
    start(path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reweigh.train.start", "reweigh.data.log"])
    random = np.random.default_rng(8)
    deaths = 0
    for life in range(40):
        if life % 4 == 3:
            target, argument = live_until, (path, float(random.uniform(0.2, 1.0)))
        else:
            target, argument = live, (path, int(random.integers(6, 24)))
        process = context.Process(target=target, args=argument)
        process.start()
        process.join(120)
        if process.exitcode == 0:
            break
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGPROF)
        deaths += 1
    assert process.exitcode == 0
    assert deaths >= 4
    assert_same(uninterrupted, Run.open(path))


def test_what_was_committed_before_a_kill_is_not_sampled_again(uninterrupted, tmp_path):
    run = start(tmp_path / "run")
    improvements = [improve, improve]

    def until_killed(*arguments):  # after the commit, before the checkpoint
        if not improvements:
            raise KeyboardInterrupt
        return improvements.pop()(*arguments)

    with pytest.raises(KeyboardInterrupt):
        finish(run, improve=until_killed)
    assert run.log.summary().steps_by_policy == {0: 60, 1: 60, 2: 60}
    finish(Run.open(tmp_path / "run"))
    assert_same(uninterrupted, Run.open(tmp_path / "run"))


def test_metrics_before_a_kill_are_not_told_twice(uninterrupted, tmp_path, monkeypatch):
    run = start(tmp_path / "run")
    finish_two = zip(range(2), train(run, collect_here(run)), strict=False)
    assert len(list(finish_two)) == 2

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", die)  # after the metrics, before the checkpoint
        with pytest.raises(KeyboardInterrupt):
            finish(Run.open(tmp_path / "run"))
    assert len(list(run.metrics())) == 3
    finish(Run.open(tmp_path / "run"))
    assert_same(uninterrupted, Run.open(tmp_path / "run"))


def test_an_environment_that_its_seed_does_not_determine_is_said(tmp_path):
    run = start(tmp_path / "run", environment="Unrepeatable-v0")
    for _ in zip(range(2), train(run, collect_here(run)), strict=False):
        pass
    with pytest.warns(UserWarning, match="did not come back to where episode"):
        collect_here(Run.open(tmp_path / "run"))


def test_runs_end_by_steps_threshold_or_minutes(tmp_path):
    by_steps = start(tmp_path / "a", steps=100)
    assert [p.steps for p in finish(by_steps)] == [60, 120]
    by_threshold = start(tmp_path / "b", threshold=5.0, check_every=60)
    (progress,) = finish(by_threshold)
    assert progress.evaluation_episodes == 100
    assert by_threshold.load_checkpoint()[0].steps_to_threshold == 60 == progress.steps
    assert finish(by_threshold) == []
    by_minutes = start(tmp_path / "c", minutes=1e-9)
    assert len(finish(by_minutes)) == 1
    by_minutes.extend(steps=None, minutes=10, threshold=None)
    assert len(finish(by_minutes)) == 9


def test_without_checks_the_threshold_is_that_of_the_training_episodes(tmp_path):
    run = start(tmp_path / "run", environment="Counting-v0", evaluation_episodes=0, threshold=1.0)
    progress = finish(run)
    assert all(p.evaluation_return is None for p in progress)
    assert progress[-1].episodes >= 100 > progress[-2].episodes


def test_with_checks_no_training_episode_reaches_the_threshold(tmp_path):
    options = {"environment": "Counting-v0", "threshold": 1.0, "check_every": 10**6}
    run = start(tmp_path / "run", **options)
    assert finish(run)[-1].episodes > 100
    assert run.load_checkpoint()[0].steps_to_threshold is None


def test_progress_tells_what_the_weights_are(uninterrupted):
    last = list(uninterrupted.metrics())[-1]
    version, reuse = last.iteration, SMALL["reuse"]
    t = uninterrupted.log.read(first_version=version - reuse + 1)
    policy = uninterrupted.load_policy(version + 1)
    with torch.no_grad():
        new = policy(torch.from_numpy(t.observations)).log_prob(torch.from_numpy(t.actions))
    weights = np.exp(new.double().numpy() - t.log_prob_behaviour)
    age = version - np.repeat(t.policy_version, t.lengths)
    assert last.reused_steps == t.steps
    assert last.max_weight == pytest.approx(weights.max(), rel=1e-5)
    assert last.mean_weight == pytest.approx(weights.mean(), rel=1e-5)
    assert last.ess == pytest.approx(
        weights.sum() ** 2 / (weights**2).sum() / len(weights), rel=1e-5
    )
    for a in range(reuse):
        assert last.mean_weight_by_age[a] == pytest.approx(weights[age == a].mean(), rel=1e-5)
    assert sum(last.weight_histogram) == t.steps
    assert last.uses == pytest.approx(
        sum(p.epochs * p.reused_steps for p in uninterrupted.metrics()) / last.steps
    )


def batch_and_learner(**options):
    config = TrainConfig(**{**SMALL, **options}).resolved(suited=DISCRETE)
    random = np.random.default_rng(2)
    lengths = np.array([40, 25, 35])
    steps, n = int(lengths.sum()), len(lengths)
    t = Trajectories(
        observations=random.normal(size=(steps, 4)).astype(np.float32),
        actions=random.integers(0, 2, steps),
        rewards=random.normal(size=steps),
        log_prob_behaviour=np.full(steps, np.log(0.5)),
        lengths=lengths,
        final_observations=random.normal(size=(n, 4)).astype(np.float32),
        terminated=np.array([False, True, False]),
        truncated=np.array([False, False, True]),
        policy_version=np.array([0, 1, 1]),
        episode=np.array([0, 0, 1]),
        seed=np.zeros(n, dtype=np.int64),
        time_start=np.array([0, 40, 0]),
    )
    env_description = (
        '{"kind": "categorical", "actions": 2, "observation_shape": [4], '
        '"observation_classes": 0, "hidden": [8]}'
    )
    return Learner.create(env_description, seed=0, learning_rate=0.01), Batch.of(t), config


def improved_by_hand(learner, batch, config):
    """Two passes of the objective in `improve`'s docstring, one minibatch each, step by step."""
    gamma, stops = config.discount, batch.segments.stop.tolist()
    behaviour = batch.log_prob_behaviour

    def values():
        v = learner.value(batch.observations).tolist()
        after = learner.value(batch.final_observations).tolist()
        return v, [x if on else 0.0 for x, on in zip(after, batch.goes_on.tolist(), strict=True)]

    def log_prob():
        return learner.policy(batch.observations).log_prob(batch.actions)

    def backwards():
        """Yield each step with its episode, whether it is the last, from the end."""
        for t in reversed(range(len(batch))):
            yield t, next(i for i, stop in enumerate(stops) if t < stop), t + 1 in stops

    returns = [0.0] * (len(batch) + 1)
    _, after = values()
    for t, i, is_last in backwards():
        returns[t] = float(batch.rewards[t]) + gamma * (after[i] if is_last else returns[t + 1])
    learner.value.standardise(torch.tensor(returns[:-1], dtype=torch.float64))
    centre = (log_prob() - behaviour).exp().detach()
    for _ in range(2):
        v, after = values()
        rho = (log_prob() - behaviour).exp().clamp(max=1).tolist()
        targets, action_values = [0.0] * len(batch), [0.0] * len(batch)
        for t, i, is_last in backwards():
            next_value, next_target = (after[i],) * 2 if is_last else (v[t + 1], targets[t + 1])
            carried = 0.0 if is_last else next_target - next_value
            delta = float(batch.rewards[t]) + gamma * next_value - v[t]
            targets[t] = v[t] + rho[t] * (delta + gamma * config.trace_lambda * carried)
            action_values[t] = float(batch.rewards[t]) + gamma * next_target
        a = torch.tensor(action_values) - torch.tensor(v)
        a = (a - a.mean()) / a.std(correction=0)
        ratio = (log_prob() - behaviour).exp()
        clipped = torch.minimum(torch.maximum(ratio, centre - config.clip), centre + config.clip)
        objective = torch.minimum(ratio * a, clipped * a).mean()
        entropy = learner.policy(batch.observations).entropy().mean()
        error = (
            learner.value(batch.observations) - torch.tensor(targets)
        ) / learner.value.deviation
        learner.optimiser.zero_grad()
        weight = config.entropy / (1 + config.entropy_decay * 1)  # of policy 1, the batch's newest
        (-objective - weight * entropy + 0.5 * (error**2).mean()).backward()
        for module in (learner.policy, learner.value):
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_gradient_norm)
        learner.optimiser.step()


def test_an_improvement_is_what_its_docstring_says():
    options = {"epochs": 2, "minibatches": 1, "max_kl": 9.0, "clip": 0.02, "entropy": 0.3}
    options |= {"entropy_decay": 0.5}
    options |= {"trace_lambda": 0.8, "max_gradient_norm": 0.05, "discount": 0.9}
    by_hand, batch, config = batch_and_learner(**options)
    random = torch.Generator().manual_seed(4)
    uneven = torch.rand(len(batch), generator=random, dtype=torch.float64)
    batch = replace(batch, log_prob_behaviour=(0.2 + 0.7 * uneven).log())
    learner, _, _ = batch_and_learner(**options)
    for each in (by_hand, learner):
        each.value.standardise(torch.tensor([40.0, 60.0]))  # so that what follows an end matters
    result = improve(learner, batch, config, torch.Generator())
    improved_by_hand(by_hand, batch, config)
    assert result.ended_by == "epochs"
    for module in ("policy", "value"):
        pairs = zip(
            getattr(learner, module).state_dict().values(),
            getattr(by_hand, module).state_dict().values(),
            strict=True,
        )
        for x, y in pairs:
            torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-5)
    now = learner.policy(batch.observations).log_prob(batch.actions)
    torch.testing.assert_close(result.log_ratios, now.double() - batch.log_prob_behaviour)


def test_a_batch_joins_the_fragments_of_an_episode():
    _, batch, _ = batch_and_learner()
    assert batch.segments.lengths.tolist() == [65, 35]
    assert batch.goes_on.tolist() == [False, True]
    assert batch.policy_version.tolist() == [0] * 40 + [1] * 60


def test_an_improvement_ends_when_the_weights_are_no_longer_healthy():
    generator = torch.Generator().manual_seed(0)
    learner, batch, config = batch_and_learner(epochs=200, max_kl=0.002, min_ess=0.0)
    result = improve(learner, batch, config, generator)
    assert result.ended_by == "kl"
    assert 0.002 < result.kl < 0.02
    assert result.epochs < 200
    learner, batch, config = batch_and_learner(epochs=200, max_kl=9.0, min_ess=0.99)
    result = improve(learner, batch, config, generator)
    assert result.ended_by == "ess"
    w = result.log_ratios.exp()
    assert float(w.sum() ** 2 / (w**2).sum()) < 0.99 * len(batch)
    learner, batch, config = batch_and_learner(epochs=2, max_kl=9.0, min_ess=0.0)
    assert improve(learner, batch, config, generator).ended_by == "epochs"


def test_a_diverged_policy_is_an_error_in_words():
    learner, batch, config = batch_and_learner()
    next(learner.policy.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="smaller learning rate"):
        improve(learner, batch, config, torch.Generator())


def test_the_value_function_is_unchanged_by_its_units():
    learner, batch, _ = batch_and_learner()
    before = learner.value(batch.observations)
    learner.value.standardise(torch.tensor([10.0, 30.0, 80.0]))
    assert learner.value.mean == 40
    torch.testing.assert_close(learner.value(batch.observations), before, rtol=1e-4, atol=1e-4)


def test_cartpole_is_solved(tmp_path):
    run = new_run(tmp_path / "run", TrainConfig(environment="CartPole-v1", seed=0, steps=6000))
    progress = finish(run)
    assert run.config.threshold == 475
    assert progress[-1].evaluation_return >= 475
    assert progress[-1].evaluation_episodes == 100
    solved = load_policy(tmp_path / "run")
    observation = torch.tensor([[0.0, 0.0, 0.1, 1.0]])
    assert solved(observation).probs[0, 1] > 0.5, "a pole that falls right is pushed right"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be positive and finite"),
        ({"discount": 1.5}, "discount is 1.5; it must be between 0 and 1"),
        ({"minutes": 0.0}, "minutes is 0.0; it must be positive"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{**SMALL, **options}).validate()


def test_a_line_of_metrics_cut_short_is_left_out_and_a_damaged_one_said(tmp_path):
    run = start(tmp_path / "run", steps=120)
    finish(run)
    path = run.path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-10])
    assert [p.iteration for p in run.metrics()] == [0]
    path.write_text("{" + whole)
    with pytest.raises(ValueError, match="damaged in line 1"):
        list(run.metrics())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda options: options | {"tau": 1}, r"unknown options \['tau'\]: another version"),
        (
            lambda options: {n: v for n, v in options.items() if n != "entropy_decay"},
            r"missing options \['entropy_decay'\]: another version",
        ),
    ],
)
def test_a_run_of_another_version_is_refused(change, message, tmp_path):
    run = start(tmp_path / "run")
    path = run.path / "config.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | {"train": change(written["train"])}))
    with pytest.raises(ValueError, match=message):
        Run.open(tmp_path / "run")


def test_a_folder_that_is_no_run_or_is_damaged_is_said(uninterrupted, tmp_path):
    with pytest.raises(ValueError, match="is not a run"):
        Run.open(tmp_path)
    with pytest.raises(ValueError, match="is a run already"):
        start(uninterrupted.path)
    run = start(tmp_path / "run", steps=60)
    finish(run)
    for name, message in [("checkpoint.safetensors", "damaged"), ("config.json", "cannot be read")]:
        path = run.path / name
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ValueError, match=message):
            Run.open(run.path).load_checkpoint()
