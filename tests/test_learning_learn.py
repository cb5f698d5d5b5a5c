"""Learning from a log alone, from end to end: what is claimed is true, what is not is kept."""

import os
import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import alike, improvable, linear_quadratic
from safety import EVERY_CLAIM_IS_FALSE, PROBLEMS, cases, lottery, success
from torch import nn

import reweigh as rw
from reweigh.core.diagnostics import doubts
from reweigh.data.episodes import Shares
from reweigh.data.trajectories import Trajectories
from reweigh.learning import improvement as improvement_module
from reweigh.learning.config import LearnConfig
from reweigh.learning.learn import learn, learning

PROBLEM = improvable(1, horizon=5)
LOG = PROBLEM.sample(800, seed=0)
QUICK = LearnConfig(hidden=(8,), minibatches=1)


def learnt_from(log=LOG, policy=None, problem=PROBLEM, **options):
    policy = problem.behaviour_policy() if policy is None else policy
    config = replace(QUICK, **{"discount": problem.discount, **options})
    return learn(log, policy, config=config)


def worth(policy, problem=PROBLEM):
    """What a policy is worth more than the behaviour, exactly."""
    with torch.no_grad():
        probabilities = policy(torch.arange(len(problem.behaviour))).probs.double().numpy()
    return problem.value_of(probabilities) - problem.behaviour_value()


# ------------------------------------------------------------------ it learns what is true


@pytest.mark.parametrize(
    "estimator",
    ["weighted_per_decision", "per_decision", "weighted_doubly_robust", "doubly_robust", "ppo"],
)
def test_every_estimator_finds_an_improvement_that_is_one(estimator):
    learnt = learnt_from(estimator=estimator)
    assert learnt.shown
    assert learnt.policy is learnt.candidate
    assert learnt.comparison is not None
    assert 0 < learnt.comparison.gain.estimate.low < worth(learnt.policy) + 0.1
    assert worth(learnt.policy) > 0.15 * (PROBLEM.value() - PROBLEM.behaviour_value())
    assert learnt.verdict.startswith("improvement shown at 95 %")


def test_episodes_of_many_lengths_that_terminate():
    problem = success()
    log = problem.sample(2000, seed=3)
    assert len(np.unique(log.lengths)) > 5
    learnt = learnt_from(log, problem=problem)
    assert learnt.shown
    assert worth(learnt.policy, problem) > 0.02


def test_continuous_actions():
    """The gain of a linear policy, whose value follows from the Riccati recursion."""
    problem = linear_quadratic()
    learnt = learnt_from(problem.sample(1600, seed=0), problem=problem, hidden=(32,))
    assert learnt.shown
    value = problem.value_of(learnt.policy.gain.detach().numpy())
    assert value - problem.behaviour_value() > 0.2


def test_a_network_learns_too():
    from reweigh.acting.policy import build, policy_of

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = build(policy_of(PROBLEM.schema, (16,)))
    even = replace(PROBLEM, behaviour=np.full_like(PROBLEM.behaviour, 1 / 3))
    learnt = learnt_from(even.sample(800, seed=0), policy, even, minibatches=4)
    assert learnt.shown
    assert worth(learnt.policy, even) > 0.15


def test_seldom_is_an_improvement_claimed_where_there_is_none():
    """The small version of benchmarks/claims.py: 40 logs of problems that hold no better policy."""
    config = replace(QUICK, estimator="weighted_per_decision", epochs=25)
    for name, logs in {"alike": 16, "optimal": 12, "lottery": 12}.items():
        assert name in EVERY_CLAIM_IS_FALSE
        found = list(cases(PROBLEMS[name](), config, episodes=600, logs=logs, processes=1))
        assert sum(case.shown for case in found) <= 1, name


def test_mostly_is_an_improvement_claimed_where_there_is_one():
    config = replace(QUICK, estimator="weighted_per_decision")
    found = list(cases(improvable(horizon=5), config, episodes=800, logs=5, processes=1))
    assert sum(case.shown and case.gain > 0 for case in found) >= 4


# ------------------------------------------------------------------ what is not shown is not used


def test_without_an_improvement_the_behaviour_is_kept():
    problem = alike()
    learnt = learnt_from(problem.sample(400, seed=0), problem=problem)
    assert not learnt.shown
    assert learnt.policy is learnt.start.policy
    torch.testing.assert_close(
        learnt.policy.state_dict()["logits"], problem.behaviour_policy().logits.detach()
    )
    assert learnt.verdict.startswith("no improvement shown at 95 %")


def test_what_is_chosen_is_tested_and_refused_if_the_test_does_not_show_it():
    """An episode that pays is in no other part than the test's if its policy is worse."""
    part = Shares(QUICK.validation, QUICK.test, QUICK.seed).part_of(LOG.episode)
    rewards = np.where(np.repeat(part == 2, LOG.lengths), -1, 1) * LOG.rewards
    learnt = learnt_from(replace(LOG, rewards=rewards))
    assert learnt.candidate is not None
    assert learnt.policy is learnt.start.policy
    assert not learnt.shown
    assert learnt.comparison is not None
    assert learnt.comparison.gain.estimate.low < 0


def test_the_stricter_test_is_asked_for():
    problem = linear_quadratic()  # whose returns vary more than the policies differ
    log = problem.sample(1500, seed=0)
    assert learnt_from(log, problem=problem).shown
    strict = learnt_from(log, problem=problem, upper_bound=True)
    assert not strict.shown
    assert "is not above the behaviour's upper bound" in strict.verdict


@pytest.mark.parametrize("guarded", [False, True])
def test_a_policy_that_turns_to_unlogged_actions_is_not_taken_for_good(guarded, monkeypatch):
    """Where nothing is paid it begins to do what was never done, and there its weights vanish."""
    problem = lottery(seldom=1e-6)
    policy = problem.behaviour_policy()
    policy.logits.data[:2] += torch.tensor([[0.0, 6.0], [0.0, 12.0]])
    if not guarded:
        monkeypatch.setattr(
            improvement_module, "weight_doubts", lambda x: doubts(x, unit="episodes")
        )
    log = problem.sample(1000, seed=0)
    learnt = learnt_from(
        log, policy, problem, estimator="weighted_per_decision", patience=30, min_episode_ess=0.3
    )
    assert learnt.shown == (not guarded)


# ------------------------------------------------------------------ parts, seeds, what is changed


def fingerprint(learnt):
    chosen = None if learnt.candidate is None else learnt.candidate.state_dict()["logits"].tolist()
    return chosen, [(p.objective, p.ess, p.kl) for p in learnt.progress]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first = fingerprint(learnt_from(minibatches=3))
    torch.manual_seed(99)
    assert fingerprint(learnt_from(minibatches=3)) == first
    assert fingerprint(learnt_from(minibatches=3, seed=1)) != first


def test_neither_the_given_policy_nor_the_random_state_nor_the_threads_change():
    policy = PROBLEM.behaviour_policy()
    before, state = deepcopy(policy.state_dict()), torch.get_rng_state()
    learnt_from(policy=policy, epochs=3, threads=min(2, os.cpu_count() or 1))
    torch.testing.assert_close(policy.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 1


def altered(part, sign=1):
    """The log with other rewards in one part of it."""
    mine = Shares(QUICK.validation, QUICK.test, QUICK.seed).part_of(LOG.episode) == part
    noise = np.random.default_rng(0).normal(0, 1, LOG.steps)
    mine = np.repeat(mine, LOG.lengths)
    return replace(LOG, rewards=np.where(mine, sign * LOG.rewards + noise, LOG.rewards))


def test_the_test_episodes_have_no_say_in_what_is_learnt_or_chosen():
    assert fingerprint(learnt_from(altered(2))) == fingerprint(learnt_from())


def test_the_validation_episodes_choose_and_teach_nothing():
    options = {"estimator": "weighted_per_decision", "patience": 100, "epochs": 12}
    chosen, epochs = fingerprint(learnt_from(altered(1, sign=-1), **options))
    expected, steps = fingerprint(learnt_from(**options))
    assert epochs == steps
    assert chosen is None
    assert expected is not None
    assert fingerprint(learnt_from(altered(0), **options))[1] != steps


def test_the_chosen_policy_is_the_last_one_said_to_be_best():
    steps = learning(LOG, PROBLEM.behaviour_policy(), config=replace(QUICK, epochs=6))
    progress = list(steps)
    bounds = [p.predicted_bound for p in progress if p.best]
    assert bounds == sorted(bounds)
    assert [p.epoch for p in progress] == list(range(1, len(progress) + 1))


# ------------------------------------------------------------------ what is chosen, and why not


def test_a_policy_is_chosen_with_a_margin_to_the_test_of_its_weights():
    """As far as it is let: at each edge of what is believed the test would refuse every other."""
    weights = []
    for seed in range(4):
        learnt = learnt_from(
            PROBLEM.sample(600, seed=seed), min_episode_ess=0.0, seed=seed, patience=30
        )
        assert learnt.comparison is not None
        weights.append(learnt.comparison.gain.weights.effective_sample_size)
    assert min(weights) > 55


def test_weights_that_the_test_would_not_believe_are_the_reason_that_is_given():
    """A third less than some sixty test episodes is fewer than any estimate is believed from."""
    learnt = learnt_from(PROBLEM.sample(300, seed=0), test=0.2)
    assert learnt.comparison is None
    assert re.search(
        r"what looked best on the validation episodes, \+0.\d+ in epoch \d+, was not tested: with "
        r"weights like its own the \d\d test episodes, less a third as a margin, would not be "
        r"believed, since the effective sample size is [\d.]+ of [34]\d episodes",
        learnt.verdict,
    )


def test_a_gain_that_what_never_happened_may_account_for_is_the_reason_that_is_given():
    rewards = LOG.rewards.copy()
    part = Shares(QUICK.validation, QUICK.test, QUICK.seed).part_of(LOG.episode)
    rewards[LOG.start[part == 1][0]] += 40.0
    learnt = learnt_from(replace(LOG, rewards=rewards))
    assert learnt.comparison is None
    assert re.search(r"was not tested: 326 test episodes show no improvement below", learnt.verdict)


def test_a_trust_region_without_room_is_the_reason_that_is_given():
    learnt = learnt_from(min_episode_ess=0.9999999)
    assert [p.undone for p in learnt.progress] == ["ess"] * 3
    assert learnt.verdict == (
        "no improvement shown at 95 %: every epoch went beyond the trust region and was undone: "
        "min_episode_ess is 0.9999999, which leaves no room to learn in"
    )
    lucky = learnt_from(altered(1, sign=-1), max_kl_from_behaviour=1e-4, patience=100)
    assert lucky.verdict == (
        "no improvement shown at 95 %: nothing that was learnt was better on the validation "
        "episodes before the trust region ended it: max_kl_from_behaviour is 0.0001"
    )


def test_nothing_better_on_the_validation_episodes_is_the_reason_otherwise():
    learnt = learnt_from(altered(1, sign=-1), epochs=2)
    assert learnt.verdict == (
        "no improvement shown at 95 %: nothing that was learnt was better on the validation "
        "episodes"
    )


def test_a_start_inside_the_usual_trust_region_is_not_blamed(stored):
    match = (
        "min_episode_ess is 0.999999, which leaves no room: with the policy to begin with, the "
        r"weights of the episodes to learn from have an effective sample size of 9\d\.\d+ % .* "
        "default is 0.5"
    )
    with pytest.raises(ValueError, match=match):
        learn(stored, config=replace(QUICK, min_episode_ess=0.999999))


# ------------------------------------------------------------------ the trust region


@pytest.mark.parametrize(("least", "most", "bound"), [(0.9, 1.0, "ess"), (0.0, 0.01, "kl")])
def test_an_epoch_beyond_the_trust_region_is_undone_and_the_step_halved(least, most, bound):
    learnt = learnt_from(min_episode_ess=least, max_kl_from_behaviour=most, patience=100)
    undone = [p.undone is not None for p in learnt.progress]
    assert undone[-3:] == [True] * 3
    assert {p.undone for p in learnt.progress if p.undone} == {bound}
    for p in learnt.progress:
        inside = p.ess >= least and p.kl <= most
        assert inside == (p.undone is None)
        assert (p.improvement is None) == (p.predicted_bound is None) == (not inside)
    standing = [p.kl for p in learnt.progress if not p.undone]
    first = undone.index(True)
    # Half a step from where the undone one began goes a quarter as far, in nats.
    again = learnt.progress[first + 1]
    assert standing[first - 1] < again.kl < learnt.progress[first].kl


def test_the_trust_region_of_the_step_estimator_is_of_steps():
    learnt = learnt_from(estimator="ppo", min_episode_ess=0.97, patience=100, epochs=30)
    assert learnt.progress[0].undone is None
    last = [p for p in learnt.progress if not p.undone][-1]
    assert last.ess >= 0.97
    assert learnt.comparison is not None
    assert learnt.comparison.gain.weights.ess_share < 0.95


def test_patience_ends_what_comes_no_closer():
    problem = alike()
    log = problem.sample(400, seed=0)
    learnt = learnt_from(log, problem=problem, patience=3)
    bounds = [p.predicted_bound for p in learnt.progress]
    highest = max(range(len(bounds)), key=lambda i: bounds[i])
    assert len(bounds) == highest + 1 + 3


def test_epochs_keep_the_pace():
    """Between the first epochs, which find it, and the edge: a tenth of the way each."""
    slow, fast = (learnt_from(pace=pace, patience=100) for pace in (0.05, 0.2))
    assert len(slow.progress) > 1.5 * len(fast.progress)


# ------------------------------------------------------------------ where it begins


@pytest.fixture
def stored(tmp_path):
    log = rw.TrajectoryLog.create(tmp_path / "log", PROBLEM.schema)
    log.append(LOG)
    return log


def test_without_a_policy_one_is_estimated_from_the_episodes_that_are_learnt_from(stored):
    learnt = learn(stored, config=QUICK)
    assert learnt.start.estimated
    assert '"tabular"' in learnt.start.description
    assert "No policy was given" in learnt.notes[0]
    assert "is not what sampled the log" in learnt.notes[1]
    assert abs(worth(learnt.start.policy)) < 0.1
    assert learnt.shown
    assert worth(learnt.policy) > 0.1
    part = Shares(QUICK.validation, QUICK.test, QUICK.seed).part_of(LOG.episode)
    log = rw.TrajectoryLog.create(stored.path.parent / "part", PROBLEM.schema)
    log.append(LOG.select(part == 0))
    from reweigh.behaviour import estimate_behaviour

    expected = estimate_behaviour(log, folds=2, seed=QUICK.seed).policy.state_dict()
    torch.testing.assert_close(learnt.start.policy.state_dict(), expected)


def test_with_the_policy_that_sampled_the_log_there_is_nothing_to_note():
    learnt = learnt_from(epochs=2)
    assert learnt.notes == ()
    assert not learnt.start.estimated
    counts = learnt.counts
    assert counts.training + counts.validation + counts.test == 800


def test_estimated_log_probabilities_are_said(tmp_path):
    schema = replace(PROBLEM.schema, behaviour="estimated by counts, 5-fold cross-fitted")
    log = rw.TrajectoryLog.create(tmp_path / "log", schema)
    log.append(LOG)
    (note,) = learn(log, PROBLEM.behaviour_policy(), config=replace(QUICK, epochs=1)).notes
    assert "not recorded but estimated by counts, 5-fold cross-fitted" in note


def test_a_policy_that_is_not_what_sampled_the_log_is_said():
    policy = PROBLEM.behaviour_policy()
    policy.logits.data[:, 0] += 0.2
    unseen, apart = learnt_from(policy=policy, epochs=1).notes
    assert "sampled no part of the log: the verdict is right only if it has not seen" in unseen
    assert "is not what sampled the log" in apart


# ------------------------------------------------------------------ bad input


def refused(match, log=LOG, policy=None, **options):
    with pytest.raises(ValueError, match=match):
        learnt_from(log, policy, **options)


def test_a_policy_far_from_what_sampled_the_log_is_refused():
    policy = PROBLEM.behaviour_policy()
    policy.logits.data[:, 0] += 6.0
    refused(r"begin with is beyond the trust region \(ess\): .* sample size of 0.\d", policy=policy)


def test_too_few_episodes_are_refused():
    refused(
        "the log has 60 whole episodes, of which 20 would be learnt from, 14 choose and 26 test, "
        "and it takes at least 25, 25 and 50: collect more episodes",
        PROBLEM.sample(60, seed=0),
    )


def test_too_few_episodes_to_choose_on_are_refused():
    refused(
        r"of which 40 would be learnt from, 8 choose and 102 test, and it takes",
        PROBLEM.sample(150, seed=0),
        validation=0.1,
        test=0.65,
    )


def test_test_episodes_that_could_never_be_believed_are_refused_before_anything_is_learnt():
    log = PROBLEM.sample(200, seed=0)
    shares = Shares(0.2, 0.3, 0)
    numbers = log.episode[shares.part_of(log.episode) == 2]
    fewer = log.select(~np.isin(log.episode, numbers[49:]))
    refused(r"\d+ choose and 49 test, and it takes at least 25, 25 and 50", fewer, test=0.3)
    enough = log.select(~np.isin(log.episode, numbers[50:]))
    assert learnt_from(enough, test=0.3, epochs=1).counts.test == 50


def test_an_empty_log_is_refused(tmp_path):
    empty = rw.TrajectoryLog.create(tmp_path / "log", PROBLEM.schema)
    for log in (empty, empty.path, Trajectories.empty(PROBLEM.schema)):
        refused("the log is empty", log)
    refused("is not a trajectory log", tmp_path)


def test_returns_that_are_all_the_same_are_refused():
    refused(r"all \d+ episodes to learn from return 5: nothing tells", one(LOG))


def one(log):
    return replace(log, rewards=np.ones(log.steps))


@pytest.mark.parametrize("name", ["rewards", "log_prob_behaviour"])
def test_a_number_that_is_not_finite_is_refused_with_its_place(name):
    column = getattr(LOG, name).copy()
    column[17] = np.nan
    refused(rf"{name}: \[nan\] in episode 3, step 2; only finite", replace(LOG, **{name: column}))


def test_an_observation_that_is_not_finite_is_refused_with_its_place():
    problem = linear_quadratic()
    log = problem.sample(200, seed=0)
    log.observations[25, 1] = np.inf
    with pytest.raises(ValueError, match=r"observations: .*inf\] in episode 2, step 5"):
        learnt_from(log, problem=problem)


def test_missing_log_probabilities_are_refused_with_what_estimates_them():
    log = replace(LOG, log_prob_behaviour=np.full(LOG.steps, np.nan))
    refused("reweigh import LOG NEW_LOG --estimate-behaviour", log)


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_episode_without_an_end_is_left_out_and_counted(tmp_path, on_disk):
    truncated = LOG.truncated.copy()
    truncated[11] = False
    log, whole = replace(LOG, truncated=truncated), LOG.select(LOG.episode != 11)
    if on_disk:
        memory, log = log, rw.TrajectoryLog.create(tmp_path / "log", PROBLEM.schema)
        log.append(memory)
    learnt, expected = (learnt_from(x, epochs=3) for x in (log, whole))
    assert learnt.unfinished == (1, 5)
    assert expected.unfinished == (0, 0)
    assert learnt.counts == expected.counts
    assert learnt.progress[-1].objective == expected.progress[-1].objective
    refused("no whole episode: all 800 lack", replace(LOG, truncated=np.zeros(800, dtype=bool)))


def test_a_policy_of_another_space_is_refused():
    refused("cannot be given the log's observations", policy=linear_quadratic().behaviour_policy())
    fewer = replace(PROBLEM, behaviour=PROBLEM.behaviour[:, :2])
    refused("the policy has 2 actions, but the log holds action 2", policy=fewer.behaviour_policy())


def test_a_policy_without_parameters_is_refused():
    policy = PROBLEM.behaviour_policy()
    policy.logits.requires_grad_(False)
    refused("no parameters that require a gradient", policy=policy)


def test_trajectories_in_memory_need_a_policy():
    with pytest.raises(ValueError, match="give the policy that sampled them, or a TrajectoryLog"):
        learn(LOG, config=QUICK)


class Diverging(nn.Module):
    """The behaviour, until it learns."""

    def __init__(self):
        super().__init__()
        self.policy = PROBLEM.behaviour_policy()
        self.first = self.policy.logits.detach().clone()

    def forward(self, observations):
        distribution = self.policy(observations)
        if not torch.equal(self.policy.logits, self.first):
            distribution.logits = distribution.logits * torch.nan
        return distribution


def test_a_policy_that_diverges_is_said():
    refused("gives log-probability nan|gives NaN or a probability of 0", policy=Diverging())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"minibatches": 0}, "minibatches is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 2**64}, f"seed is {2**64}; it must be at most {2**64 - 1}"),
        ({"threads": 100_000}, r"threads is 100000; it must be at most \d+, the processors here"),
        ({"max_kl_from_behaviour": 0.0}, "max_kl_from_behaviour is 0.0; it must be positive"),
        ({"pace": -1.0}, "pace is -1.0"),
        ({"discount": 1.1}, "discount is 1.1; it must be between 0 and 1"),
        ({"min_episode_ess": -0.1}, "min_episode_ess is -0.1"),
        ({"min_episode_ess": 1.0}, "only the behaviour itself has that"),
        ({"validation": 0.0}, "validation is 0.0; it must be a share"),
        ({"test": 1.0}, "test is 1.0; it must be a share"),
        ({"validation": 0.5, "test": 0.5}, "nothing is left to learn from"),
        ({"level": 0.5}, "level is 0.5; it must be between 0.5 and 1"),
        ({"hidden": (8, 0)}, r"hidden is \(8, 0\)"),
        (
            {"estimator": "guess"},
            "estimator is 'guess'; use one of importance",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    refused(message, **options)
