"""The exact process: beside the golden file, finite differences, and sums over all trajectories."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from reweigh.verify.golden import SHIPPED
from reweigh.verify.problem import Problem

FILES = json.loads(SHIPPED.read_text())["problems"]


def process(file):
    return Problem(
        name=file["name"],
        horizon=file["H"],
        discount=file["gamma"],
        initial=np.array(file["p0"]),
        transition=np.array(file["P"]),
        reward=np.array(file["R"]),
        terminal=np.array(file["terminal"]),
    )


def policies(problem, file):
    return {name: problem.policy(np.array(file[name])) for name in ("theta", "phi")}


def close(value, expected, tolerance=1e-13):
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance)


@pytest.fixture(params=FILES, ids=lambda file: file["name"])
def file(request):
    return request.param


def test_values_and_visits_are_those_of_the_golden_file(file):
    problem = process(file)
    for name, policy in policies(problem, file).items():
        values, action_values = problem.values(policy)
        close(values, file["exact"][f"V_{name}"])
        close(action_values, file["exact"][f"Q_{name}"])
        close(problem.visits(policy), file["exact"][f"occ_{name}"])
        close(problem.value(policy), file["exact"][f"J_{name}"])


def test_the_eight_gradients_are_those_of_the_golden_file(file):
    problem, seen = process(file), set()
    given = policies(problem, file)
    for visits, continues in itertools.product(given, repeat=2):
        for discounted, suffix in ((True, "gt"), (False, "nogt")):
            key = f"{visits},{continues},{suffix}"
            gradient = problem.policy_gradient(
                np.array(file["theta"]),
                visits=given[visits],
                continues=given[continues],
                discounted=discounted,
            )
            close(gradient, file["exact"]["F"][key])
            seen.add(key)
    assert seen == set(file["exact"]["F"])
    close(file["exact"]["F"]["theta,theta,gt"], file["exact"]["grad_J"])


@pytest.mark.parametrize("terminal_states", [0, 2])
def test_the_policy_gradient_is_that_of_finite_differences(terminal_states):
    problem = Problem.random(
        3, states=5, actions=3, horizon=4, discount=0.9, terminal_states=terminal_states
    )
    logits = np.random.default_rng(0).standard_normal((5, 3))
    policy = problem.policy(logits)
    gradient = problem.policy_gradient(logits, visits=policy, continues=policy, discounted=True)
    step, differences = 1e-5, np.zeros_like(logits)
    for cell in np.ndindex(logits.shape):
        shift = np.zeros_like(logits)
        shift[cell] = step
        ends = [problem.value(problem.policy(logits + sign * shift)) for sign in (1, -1)]
        differences[cell] = (ends[0] - ends[1]) / (2 * step)
    close(gradient, differences, 1e-9)
    assert (gradient[problem.terminal] == 0).all()


@pytest.mark.parametrize("file", FILES[:2], ids=lambda file: file["name"], indirect=True)
def test_sums_over_all_trajectories_are_the_recursions(file):
    problem = process(file)
    trajectories = problem.trajectories()
    assert len(trajectories) == file["exact"]["n_trajectories"]
    for policy in policies(problem, file).values():
        visits, value, total = np.zeros((problem.horizon, len(problem.initial))), 0.0, 0.0
        for x in trajectories:
            steps = range(len(x.actions))
            chance = x.probability * math.prod(policy[x.states[t], x.actions[t]] for t in steps)
            total += chance
            value += chance * sum(problem.discount**t * x.rewards[t] for t in steps)
            for t in steps:
                visits[t, x.states[t]] += chance
        assert total == pytest.approx(1, abs=1e-13)
        assert value == pytest.approx(problem.value(policy), abs=1e-13)
        close(visits, problem.visits(policy))


def test_the_tiny_problem_can_be_computed_by_hand():
    problem = Problem.tiny()
    even = problem.policy(np.zeros((2, 2)))
    # Each step is worth (1 + 3) / 2 = 2, and the second one is reached with probability 1/4.
    close(problem.visits(even), [[1, 0], [0.25, 0]], 0)
    assert problem.value(even) == 2 + 0.25 * 0.5 * 2
    assert [(x.states, x.actions, x.rewards, x.probability) for x in problem.trajectories(1)] == [
        ((0, 0), (0,), (1.0,), 0.5),
        ((0, 1), (0,), (1.0,), 0.5),
        ((0, 1), (1,), (3.0,), 1.0),
    ]
    assert len(problem.trajectories()) == 5


def test_a_random_problem_is_a_process_and_depends_on_its_seed():
    shape = {"states": 4, "actions": 2, "horizon": 3, "discount": 0.8, "terminal_states": 1}
    problem, same, other = (Problem.random(seed, **shape) for seed in (1, 1, 2))
    close(problem.transition.sum(2), 1)
    assert problem.initial.sum() == pytest.approx(1) and problem.initial[3] == 0
    assert problem.terminal.tolist() == [False, False, False, True]
    assert (problem.transition == same.transition).all()
    assert (problem.transition != other.transition).all()


def test_a_policy_of_large_logits_is_finite_and_an_episode_may_begin_at_its_end():
    problem = Problem.tiny()
    close(problem.policy(np.array([[1e4, 0.0], [-1e4, 0.0]])), [[1, 0], [0, 1]], 0)
    ended = replace(problem, initial=np.array([0.5, 0.5]))
    even = ended.policy(np.zeros((2, 2)))
    assert ended.value(even) == problem.value(even) / 2
    assert sum(x.probability for x in ended.trajectories(0)) == 0.5
