import math

import pytest
import torch
from core_batches import close, seeds
from hypothesis import given, settings

from reweigh.core import advantages
from reweigh.core.segments import Segments

several = settings(max_examples=30, deadline=None, derandomize=True)
ALL = (advantages.group_centred, advantages.group_relative, advantages.leave_one_out)


def random_groups(seed, count=12, groups=5):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, generator=g, dtype=torch.float64)
    group = torch.randint(groups, (count,), generator=g)
    return scores, group, torch.rand(count, generator=g) < 0.7


def by_definition(scores, group, kept, epsilon):
    """Oracle: each episode's group as a list, in Python."""
    scores, group, kept = scores.tolist(), group.tolist(), kept.tolist()
    centred, relative, out = [], [], []
    for i in range(len(scores)):
        others = [
            scores[j] for j in range(len(scores)) if group[j] == group[i] and kept[j] and j != i
        ]
        if not kept[i] or not others:
            for found in (centred, relative, out):
                found.append(0.0)
            continue
        everyone = [scores[i], *others]
        mean = sum(everyone) / len(everyone)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in everyone) / (len(everyone) - 1))
        centred.append(scores[i] - mean)
        relative.append((scores[i] - mean) / (deviation + epsilon))
        out.append(scores[i] - sum(others) / len(others))
    return centred, relative, out


@several
@given(seed=seeds)
def test_each_is_its_definition(seed):
    scores, group, kept = random_groups(seed)
    given = {"groups": 5, "kept_episodes": kept}
    found = (
        advantages.group_centred(scores, group, **given),
        advantages.group_relative(scores, group, epsilon=0.1, **given),
        advantages.leave_one_out(scores, group, **given),
    )
    for value, want in zip(found, by_definition(scores, group, kept, 0.1), strict=True):
        close(value, want)


@several
@given(seed=seeds)
def test_leave_one_out_is_the_centred_score_scaled(seed):
    scores, group, _ = random_groups(seed)
    count = torch.bincount(group, minlength=5)[group].double()
    scale = torch.where(count > 1, count / (count - 1).clamp(min=1), 0.0)
    centred = advantages.group_centred(scores, group, groups=5)
    close(advantages.leave_one_out(scores, group, groups=5), scale * centred)
    sums = torch.zeros(5, dtype=torch.float64).index_add(0, group, centred)
    close(sums, torch.zeros(5))


@several
@given(seed=seeds)
def test_a_rejected_episode_does_not_exist(seed):
    scores, group, kept = random_groups(seed)
    scores = torch.where(kept, scores, torch.nan)
    for function in ALL:
        found = function(scores, group, groups=5, kept_episodes=kept)
        close(found[kept], function(scores[kept], group[kept], groups=5))
        assert bool((found[~kept] == 0).all())


def test_rejected_scores_do_not_pollute_the_accepted():
    """With the rejected score in the mean, the first would get -49.5 instead of +1."""
    scores = torch.tensor([2.0, 0.0, 152.5])
    group, kept = torch.zeros(3, dtype=torch.int64), torch.tensor([True, True, False])
    close(scores[0] - scores.mean(), -49.5, 1e-6)
    found = advantages.group_centred(scores, group, groups=1, kept_episodes=kept)
    assert found.tolist() == [1.0, -1.0, 0.0]
    assert advantages.leave_one_out(scores, group, groups=1, kept_episodes=kept).tolist() == [
        2.0,
        -2.0,
        0.0,
    ]


def test_relative_scores_have_no_scale():
    scores, group, _ = random_groups(1)
    found = advantages.group_relative(scores, group, groups=5, epsilon=1e-12)
    moved = advantages.group_relative(1e6 * scores - 1e3, group, groups=5, epsilon=1e-12)
    close(moved, found, 1e-8)


def test_a_group_that_agrees_teaches_nothing():
    """0.1 is no binary fraction: its mean is not 0.1, and dividing by ε would show it."""
    scores = torch.full((3,), 0.1, dtype=torch.float64)
    for function in ALL:
        assert function(scores, torch.zeros(3, dtype=torch.int64), groups=1).tolist() == [0.0] * 3


def test_alone_or_absent():
    scores, group = torch.tensor([5.0, 7.0]), torch.tensor([0, 3])
    for function in ALL:
        assert function(scores, group, groups=9).tolist() == [0.0, 0.0]
        nobody = torch.zeros(2, dtype=torch.bool)
        assert function(scores, group, groups=9, kept_episodes=nobody).tolist() == [0.0, 0.0]


def test_steps_get_the_advantage_of_their_episode():
    segments = Segments.packed([2, 1])
    found = advantages.group_centred(
        torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([0, 0]), groups=1
    )
    assert not found.requires_grad
    assert segments.spread(found).tolist() == [-1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("group", "knobs", "message"),
    [
        (torch.tensor([0, 2]), {"groups": 2}, r"group must lie in \[0, 2\), got 0 to 2"),
        (torch.tensor([-1, 0]), {"groups": 2}, "got -1 to 0"),
        (torch.tensor([0.0, 1.0]), {"groups": 2}, "group must be int64"),
        (torch.tensor([0, 1, 1]), {"groups": 2}, r"returns must have shape \[3\]"),
        (
            torch.tensor([0, 1]),
            {"groups": 2, "kept_episodes": torch.ones(2)},
            "kept_episodes must be bool",
        ),
        (torch.tensor([0, 1]), {"groups": 2, "epsilon": 0.0}, "epsilon must be positive"),
    ],
)
def test_refusals(group, knobs, message):
    with pytest.raises(ValueError, match=message):
        advantages.group_relative(torch.zeros(2), group, **knobs)
