"""One record of steps from every layout; episodes that lie in several rows or on several ranks."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from core_batches import GAMMA, close, ragged

import reweigh as rw
from reweigh.core.sample import EpisodeTotals

LENGTHS = [4, 2, 6, 1]
DERIVED = (
    *("log_ratios", "log_prefix", "log_trajectory", "log_geometric_mean", "discount_from_start"),
    *("discounted_rewards", "returns", "reward_to_go", "trained_steps"),
)


def packed():
    return ragged(LENGTHS, 7).sample


def laid_out(segments, mask, shape):
    """The same steps where the mask is True, NaN elsewhere."""
    b = ragged(LENGTHS, 7)

    def place(x):
        flat = torch.full((mask.numel(),), torch.nan, dtype=torch.float64)
        return flat.masked_scatter(mask.flatten(), x).reshape(shape)

    return rw.Sample(
        place(b.target), place(b.behaviour), segments, place(b.rewards), discount=GAMMA
    )


def rows():
    mask = torch.arange(7) < torch.tensor(LENGTHS).unsqueeze(1)
    return laid_out(rw.Segments.masked(mask), mask, (4, 7)), mask


def right_aligned():
    mask = torch.arange(7) >= 7 - torch.tensor(LENGTHS).unsqueeze(1)
    return laid_out(rw.Segments.masked(mask), mask, (4, 7)), mask


def tail(dtype):
    bounds = torch.tensor([0, *LENGTHS], dtype=dtype).cumsum(0, dtype=dtype)
    mask = torch.arange(16) < 13
    return laid_out(rw.Segments.from_cu_seqlens(bounds, size=16), mask, (16,)), mask


def ids(shape):
    """Packed two rows deep; a negative number is padding, between episodes and at the end."""
    numbers = [7, 7, 7, 7, -1, 3, 3, 9, 9, 9, 9, 9, 9, 0, -1, -1]
    numbers = torch.tensor(numbers, dtype=torch.int32).reshape(shape)
    return laid_out(rw.Segments.from_episode_ids(numbers), numbers >= 0, shape), numbers >= 0


LAYOUTS = {
    "rows": rows,
    "rows, padded on the left": right_aligned,
    "cu_seqlens with a padded tail": lambda: tail(torch.int64),
    "cu_seqlens in int32": lambda: tail(torch.int32),
    "episode ids": lambda: ids((16,)),
    "episode ids in rows": lambda: ids((2, 8)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_numbers(name):
    want, (sample, mask) = packed(), LAYOUTS[name]()
    assert len(sample) == 4 and sample.segments.lengths.tolist() == LENGTHS
    for derived in DERIVED:
        x, y = getattr(sample, derived), getattr(want, derived)
        close(x if len(x) == 4 else x[mask.flatten()], y)
        assert len(x) == 4 or bool((x[~mask.flatten()] == 0).all())
    loss = rw.recipes.step(sample)
    close(loss, rw.recipes.step(want))
    assert rw.recipes.step.objective(sample).shape == mask.shape


def test_layouts_that_cannot_be_are_refused():
    build = rw.Segments.from_cu_seqlens
    with pytest.raises(ValueError, match=r"begin with 0, got \[1, 3\]"):
        build(torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="spans positions 0 to 2"):
        build(torch.tensor([0, 2, 1]))
    with pytest.raises(ValueError, match="spans positions 2 to 5"):
        build(torch.tensor([0, 2, 5]), size=4)
    assert build(torch.tensor([0, 2, 2, 3])).lengths.tolist() == [2, 0, 1]
    by_id = rw.Segments.from_episode_ids
    with pytest.raises(ValueError, match="episode id 4 comes again after another"):
        by_id(torch.tensor([4, 4, 5, 4]))
    with pytest.raises(ValueError, match="must be integers, got torch"):
        by_id(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="at least one episode"):
        by_id(torch.tensor([-1, -1]))


def change(**fields):
    b = ragged(LENGTHS, 7)
    base = {
        "log_prob_target": b.target,
        "log_prob_behaviour": b.behaviour,
        "segments": b.segments,
        "rewards": b.rewards,
    }
    return lambda: rw.Sample(**{**base, **fields})


def with_one(value):
    x = torch.zeros(13)
    x[5] = value
    return x


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (change(log_prob_target=torch.zeros(12)), r"log_prob_target must have shape \[13\]"),
        (change(log_prob_behaviour=torch.zeros(4, 3)), r"log_prob_behaviour must have shape"),
        (change(rewards=torch.zeros(2)), r"rewards must have shape \[13\]"),
        (change(log_prob_target=torch.zeros(13).half()), "log_prob_target is torch.float16"),
        (change(log_prob_target=with_one(torch.nan)), "nan at step 1 of episode 1"),
        (change(log_prob_target=with_one(torch.inf)), "inf at step 1 of episode 1"),
        (change(log_prob_behaviour=with_one(-torch.inf)), "-inf at step 1 of episode 1"),
        (change(discount=1.5), "discount must lie in"),
        (change(trained=torch.ones(13)), "trained must be bool"),
        (change(trained=torch.ones(4).bool()), r"trained must have shape \[13\]"),
    ],
)
def test_what_is_wrong_is_said_when_the_sample_is_made(build, message):
    with pytest.raises(ValueError, match=message):
        build()
    assert change(log_prob_target=with_one(-torch.inf))().log_trajectory[1] == -torch.inf


@pytest.mark.parametrize(
    "name", [x for x in DERIVED if x.startswith("log_")] + ["step", "per_decision", "ppo", "grpo"]
)
def test_without_the_behaviours_log_probabilities_nothing_is_weighed(name):
    sample = replace(packed(), log_prob_behaviour=None)
    inputs = {"ppo": [torch.ones(13)], "grpo": [torch.ones(4)]}.get(name, [])
    with pytest.raises(ValueError, match="without them no step can be weighed"):
        getattr(sample, name) if name in DERIVED else rw.recipes.ALL[name](sample, *inputs)
    close(rw.recipes.reinforce(sample), rw.recipes.reinforce(packed()))
    assert rw.recipes.awr(sample, torch.ones(13)).isfinite()


def test_a_step_that_was_sampled_and_is_not_trained_on_keeps_its_ratio():
    """The first token by an older version: out of the loss, not out of the product."""
    log_ratios = torch.tensor([1.0, 0.1, 0.2], dtype=torch.float64)
    behaviour = torch.full((3,), -2.0, dtype=torch.float64)
    target = (behaviour + log_ratios).requires_grad_()
    trained = torch.tensor([False, True, True])
    rewards = torch.tensor([0.0, 0.0, 1.0])
    sample = rw.Sample(target, behaviour, rw.Segments.packed([3]), rewards, trained=trained)
    close(sample.log_prefix, [1.0, 1.1, 1.3])
    close(sample.log_geometric_mean, [1.3 / 3])
    assert sample.trained_steps.tolist() == [2.0]
    (slope,) = torch.autograd.grad(-rw.recipes.trajectory(sample), target)
    weight = torch.tensor(1.3, dtype=torch.float64).exp()
    close(slope, [0.0, weight, weight])
    masked = rw.Segments.packed([3], mask=trained)
    close(rw.Sample(target, behaviour, masked, rewards).log_prefix[1:], [0.1, 0.3])


def test_a_fragment_goes_on_from_the_weight_that_its_earlier_steps_earned():
    whole = ragged([5], 3).sample
    late = rw.Segments.packed([3], time_start=torch.tensor([2]))
    pieces = (whole.log_prob_target[2:], whole.log_prob_behaviour[2:], late, whole.rewards[2:])
    with pytest.raises(ValueError, match="log_weight_start is needed"):
        _ = rw.Sample(*pieces).log_prefix
    fragment = rw.Sample(*pieces, log_weight_start=whole.log_prefix[1:2])
    close(fragment.log_prefix, whole.log_prefix[2:])
    with pytest.raises(ValueError, match="needs whole episodes"):
        _ = fragment.log_trajectory


def test_against_one_behaviour_and_its_own_prefix_change_nothing():
    sample = packed()
    against = sample.against(sample.log_prob_behaviour.unsqueeze(0), torch.ones(1))
    close(against.log_prefix, sample.log_prefix)
    close(sample.with_prefix(torch.zeros(13)).log_prefix, torch.zeros(13))
    close(sample.log_prefix, packed().log_prefix)
    mask = torch.ones(4, 3).bool()
    b = ragged([3] * 4, 2)
    shaped = rw.Sample(b.target.reshape(4, 3), b.behaviour.reshape(4, 3), rw.Segments.masked(mask))
    sources = b.sources.reshape(3, 4, 3)
    shares = torch.tensor([0.5, 0.3, 0.2])
    close(
        shaped.against(sources, shares).log_prefix, b.sample.against(b.sources, shares).log_prefix
    )


# Five answers of the batch that follow are split: by position over two ranks, or into rows.
ANSWERS = [4, 7, 1, 2, 5]
ADVANTAGES = torch.tensor([1.0, -0.5, 0.7, -2.0, 0.3], dtype=torch.float64)
TRAINED = torch.arange(19) % 5 != 2
RECIPES = {
    "gspo": {"clip": 0.5, "clip_high": 0.5},
    "topr": {},
    "grpo": {},
    "dr_grpo": {"horizon": 9},
    "dapo": {},
    "cispo": {},
    "rloo": {},
}


def joined(*, trained=None):
    b = ragged(ANSWERS, 11)
    leaf = (b.behaviour + 0.2 * b.values).clone().requires_grad_()
    return rw.Sample(leaf, b.behaviour, b.segments, trained=trained), leaf


def piece(whole, steps, lengths, *, time_start):
    """Some steps of the joined answers as a sample of their own."""
    return replace(
        whole,
        log_prob_target=whole.log_prob_target[steps],
        log_prob_behaviour=whole.log_prob_behaviour[steps],
        segments=rw.Segments.packed(lengths, time_start=torch.tensor(time_start)),
        trained=None if whole.trained is None else whole.trained[steps],
        shape=None,
    )


def halves(whole):
    """Every answer cut in two: what each of two context-parallel ranks holds, empty parts too."""
    time, lengths = whole.segments.time, whole.segments.lengths
    cut = (lengths + 1) // 2
    early = (time < cut[whole.segments.episode]).nonzero().squeeze(1)
    late = (time >= cut[whole.segments.episode]).nonzero().squeeze(1)
    return [
        piece(whole, early, cut.tolist(), time_start=[0] * 5),
        piece(whole, late, (lengths - cut).tolist(), time_start=cut.tolist()),
    ]


@pytest.mark.parametrize("trained", [None, TRAINED], ids=["all", "some"])
@pytest.mark.parametrize("name", RECIPES)
def test_an_answer_cut_over_two_ranks_is_the_joined_answer(name, trained):
    whole, leaf = joined(trained=trained)
    recipe, knobs = rw.recipes.ALL[name], RECIPES[name]
    want = recipe(whole, ADVANTAGES, **knobs)
    parts = halves(whole)
    totals = parts[0].episode_totals().merge(parts[1].episode_totals())
    found = sum(recipe(part.with_totals(totals), ADVANTAGES, **knobs) for part in parts)
    close(found.detach(), want.detach())
    (here,), (there,) = (torch.autograd.grad(x, leaf, retain_graph=True) for x in (found, want))
    close(here, there)


@pytest.mark.parametrize("name", RECIPES)
def test_an_answer_in_several_rows_is_the_joined_answer(name):
    """Rows in any order: answer 1 in three of them, answer 4 in two."""
    whole, leaf = joined(trained=TRAINED)
    recipe, knobs = rw.recipes.ALL[name], RECIPES[name]
    lengths, episode = [3, 4, 3, 1, 2, 2, 2, 2], torch.tensor([4, 0, 1, 2, 1, 3, 4, 1])
    start = [16, 0, 4, 11, 7, 12, 14, 9]
    steps = torch.cat([torch.arange(s, s + n) for s, n in zip(start, lengths, strict=True)])
    assert sorted(steps.tolist()) == list(range(19))
    times = [s - int(whole.segments.start[e]) for s, e in zip(start, episode, strict=True)]
    rows = piece(whole, steps, lengths, time_start=times)
    rows = rows.with_totals(rows.episode_totals(episode, episodes=5), episode)
    assert len(rows) == 8 and rows.episodes == 5
    want, found = recipe(whole, ADVANTAGES, **knobs), recipe(rows, ADVANTAGES, **knobs)
    close(found.detach(), want.detach())
    (here,), (there,) = (torch.autograd.grad(x, leaf, retain_graph=True) for x in (found, want))
    close(here, there)
    groups = rw.recipes.Grouped(ADVANTAGES, torch.tensor([0, 0, 1, 1, 1]), 2)
    close(recipe(rows, groups, **knobs), recipe(whole, groups, **knobs))


def test_one_rollout_in_two_rows_counts_once():
    """Three rows of four tokens, the first two of them one rollout: shares 1/4, 1/4 and 1/2."""
    leaf = torch.full((3, 4), -1.0, requires_grad=True)
    rows = rw.Sample(leaf, leaf.detach(), rw.Segments.masked(torch.ones(3, 4).bool()))
    episode = torch.tensor([0, 0, 1])
    rows = rows.with_totals(rows.episode_totals(episode, episodes=2), episode)
    (slope,) = torch.autograd.grad(-rw.recipes.grpo(rows, torch.ones(2)), leaf)
    close(slope.sum(1), [0.25, 0.25, 0.5], 1e-6)


def test_micro_batches_with_the_batchs_divisor_are_the_batch():
    """An answer of eight tokens and one of one: the mean is over the nine of them."""
    leaf = torch.full((2, 8), -1.0, requires_grad=True)
    mask = torch.arange(8) < torch.tensor([[8], [1]])
    a = torch.tensor([1.0, -1.0])

    def loss(rows, **divisor):
        old = leaf[rows].detach()
        segments = rw.Segments.masked(mask[rows])
        per_token = a[rows].unsqueeze(1).expand(-1, 8)
        return rw.recipes.tis(rw.Sample(leaf[rows], old, segments), old, per_token, **divisor)

    whole = torch.autograd.grad(loss(slice(0, 2)), leaf)[0]
    parts = [torch.autograd.grad(loss(slice(i, i + 1), divisor=9), leaf)[0] for i in (0, 1)]
    close(sum(parts), whole)
    close(whole[:, 0], torch.tensor([-1 / 9, 1 / 9]), 1e-6)


def test_groups_that_micro_batches_cut_take_the_batchs_advantages():
    leaf = torch.full((4, 2), -1.0, requires_grad=True)
    returns, group = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0, 0, 1, 1])
    each = rw.advantages.group_relative(returns, group, groups=2)

    def slope(rows, advantages):
        segments = rw.Segments.masked(torch.ones(len(rows), 2).bool())
        sample = rw.Sample(leaf[rows], leaf[rows].detach(), segments)
        return torch.autograd.grad(rw.recipes.grpo(sample, advantages, divisor=4), leaf)[0]

    want = slope([0, 1, 2, 3], rw.recipes.Grouped(returns, group, 2))
    assert float(want.abs().sum()) > 0.5
    close(slope([0, 2], each[[0, 2]]) + slope([1, 3], each[[1, 3]]), want)


def test_parts_that_number_their_answers_differently_are_refused():
    totals = packed().episode_totals()
    with pytest.raises(ValueError, match="parts have 4 and 6 episodes"):
        totals.merge(packed().episode_totals(torch.arange(4), episodes=6))
    with pytest.raises(ValueError, match=r"episode must lie in \[0, 3\)"):
        packed().episode_totals(torch.arange(4), episodes=3)
    with pytest.raises(ValueError, match=r"episode must have shape \[4\]"):
        packed().episode_totals(torch.arange(3), episodes=3)


RANK = """
import json, sys, torch, reweigh as rw
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2
)
log_prob = torch.arange(4.0)[2 * rank : 2 * rank + 2] - 5
segments = rw.Segments.packed([2], time_start=torch.tensor([2 * rank]))
part = rw.Sample(log_prob, log_prob - 0.1 * (rank + 1), segments)
totals = rw.merge_over_ranks(part.episode_totals())
print(json.dumps([x.tolist() for x in totals]))
"""


def test_totals_merge_over_ranks(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        totals = EpisodeTotals(*(torch.tensor(x) for x in json.loads(out)))
        close(totals.log_ratios, [0.6], 1e-6)
        assert totals.steps.tolist() == totals.trained_steps.tolist() == [4.0]
