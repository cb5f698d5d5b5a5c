from dataclasses import replace

import numpy as np
import pytest
from data_samples import CARTPOLE, assert_same_bits, random_trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

from reweigh.data import ArraySpec, Trajectories, TrajectorySchema

LENGTHS = st.lists(st.integers(1, 9), min_size=0, max_size=6)


def sample(lengths, seed=0):
    return random_trajectories(CARTPOLE, lengths, np.random.default_rng(seed))


def pieces(trajectories):
    """One Trajectories a fragment, cut out with slices: the oracle of `select`."""
    stop = np.cumsum(trajectories.lengths)
    for i, (a, b) in enumerate(zip(stop - trajectories.lengths, stop, strict=True)):
        step, row = slice(a, b), slice(i, i + 1)
        yield Trajectories(
            **{
                name: column[step if name in STEPS else row]
                for name, column in vars(trajectories).items()
                if name in Trajectories.__dataclass_fields__
            }
        )


STEPS = {"observations", "actions", "rewards", "log_prob_behaviour"}


def test_a_schema_survives_json():
    schema = TrajectorySchema("X", ArraySpec("uint8", (84, 84)), ArraySpec("float64", (2,)), False)
    assert TrajectorySchema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize("text", ["{", "[]", '{"environment": "X"}', '{"observation": 3}'])
def test_what_is_no_schema_is_refused(text):
    with pytest.raises(ValueError, match="Not a trajectory schema"):
        TrajectorySchema.from_json(text)


@pytest.mark.parametrize("dtype", ["object", "complex64", "<f4", "float", "nonsense"])
def test_a_dtype_that_cannot_be_kept_is_refused(dtype):
    with pytest.raises(ValueError, match=dtype):
        ArraySpec(dtype, ())


@given(LENGTHS)
def test_concatenating_the_pieces_gives_the_whole(lengths):
    whole = sample(lengths)
    parts = [Trajectories.empty(CARTPOLE), *pieces(whole)]
    assert_same_bits(Trajectories.concatenate(parts), whole)


@given(LENGTHS, st.randoms(use_true_random=False))
def test_selecting_is_concatenating_the_chosen_pieces(lengths, random):
    whole = sample(lengths)
    chosen = [random.randrange(len(lengths)) for _ in lengths]
    parts = [Trajectories.empty(CARTPOLE), *(list(pieces(whole))[i] for i in chosen)]
    expected = Trajectories.concatenate(parts)
    assert_same_bits(whole.select(np.array(chosen, dtype=np.int64)), expected)


def test_a_mask_selects_as_its_indices_do():
    whole = sample([3, 1, 4, 2])
    mask = np.array([True, False, True, True])
    assert_same_bits(whole.select(mask), whole.select(np.flatnonzero(mask)))


def test_nothing_to_concatenate_is_refused():
    with pytest.raises(ValueError, match=r"Trajectories\.empty"):
        Trajectories.concatenate([])


def cut(lengths, seed=0):
    """Episodes cut into fragments of one to three steps, and the episodes themselves."""
    rng = np.random.default_rng(seed)
    whole = sample(lengths)
    fragments = []
    for episode in range(len(whole)):
        left, time = int(whole.lengths[episode]), 0
        while left:
            size = int(min(left, rng.integers(1, 4)))
            left -= size
            fragments.append((episode, time, size, left == 0))
            time += size
    episode, time, size, ends = (np.array(column) for column in zip(*fragments, strict=True))
    per_fragment = {"final_observations": whole.final_observations[episode]}
    return whole, replace(
        whole,
        **per_fragment,
        lengths=size.astype(np.int64),
        terminated=ends & whole.terminated[episode],
        truncated=ends & whole.truncated[episode],
        policy_version=np.arange(len(size)),
        episode=episode.astype(np.int64),
        seed=whole.seed[episode],
        time_start=time.astype(np.int64),
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_spans_put_shuffled_fragments_together_again(lengths, seed):
    whole, fragments = cut(lengths, seed)
    shuffled = fragments.select(np.random.default_rng(seed).permutation(len(fragments)))
    again = shuffled.in_episode_order()
    first, last = again.episode_spans()
    np.testing.assert_array_equal(again.start[first], whole.start)
    np.testing.assert_array_equal(again.stop[last], whole.stop)
    np.testing.assert_array_equal(again.rewards, whole.rewards)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"episode": [0, 1]}, "another episode"),
        ({"time_start": [0, 4]}, "a gap in time"),
        ({"terminated": [True, False]}, "the episode had terminated"),
        ({"truncated": [True, False]}, "the episode was cut"),
    ],
)
def test_spans_do_not_join(change, why):
    no = [False, False]
    base = {"episode": [0, 0], "time_start": [0, 3], "terminated": no, "truncated": no}
    joined = replace(sample([3, 2]), **{k: np.array(v) for k, v in base.items()})
    assert [s.tolist() for s in joined.episode_spans()] == [[0], [1]]
    apart = replace(joined, **{k: np.array(v) for k, v in change.items()})
    assert [s.tolist() for s in apart.episode_spans()] == [[0, 1], [0, 1]], why


def test_empty_has_no_spans():
    first, last = Trajectories.empty(CARTPOLE).episode_spans()
    assert len(first) == len(last) == 0


def with_value(name, entry, value):
    trajectories = sample([2, 3])
    column = getattr(trajectories, name).copy()
    column[entry] = value
    return replace(trajectories, episode=np.array([7, 8]), **{name: column})


@settings(max_examples=20)
@given(LENGTHS)
def test_what_is_well_formed_is_valid(lengths):
    sample(lengths).validate(CARTPOLE)


def test_terminated_and_truncated_at_once_is_valid():
    both = np.array([True, True])
    replace(sample([2, 3]), terminated=both, truncated=both).validate(CARTPOLE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rewards", np.nan),
        ("rewards", np.inf),
        ("observations", np.nan),
        ("log_prob_behaviour", -np.inf),
        ("log_prob_behaviour", np.nan),
        ("log_prob_behaviour", 0.25),
    ],
)
def test_a_value_that_cannot_be_is_named_by_column_episode_and_step(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: .*{value}.*episode 8, step 0;"):
        with_value(name, 2, value).validate(CARTPOLE)


def test_the_step_is_that_of_the_episode_not_of_the_fragment():
    late = replace(with_value("rewards", 3, np.nan), time_start=np.array([0, 100]))
    with pytest.raises(ValueError, match="episode 8, step 101;"):
        late.validate(CARTPOLE)


def test_a_density_may_exceed_one():
    density = replace(CARTPOLE, discrete_actions=False)
    with_value("log_prob_behaviour", 3, 2.5).validate(density)


@pytest.mark.parametrize("name", ["policy_version", "time_start", "episode"])
def test_a_count_below_zero_is_refused(name):
    bad = replace(sample([2, 3]), **{name: np.array([0, -1])})
    with pytest.raises(ValueError, match=f"^{name}: -1 "):
        bad.validate(CARTPOLE)


def test_a_final_observation_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"final_observations: .*nan.* in episode 8;"):
        with_value("final_observations", 1, np.nan).validate(CARTPOLE)


def test_a_continuous_action_that_is_not_finite_is_refused():
    schema = replace(CARTPOLE, action=ArraySpec("float32", (2,)), discrete_actions=False)
    trajectories = random_trajectories(schema, [2], np.random.default_rng(0))
    trajectories.actions[1, 1] = np.inf
    with pytest.raises(ValueError, match=r"actions: .*inf.*step 1;"):
        trajectories.validate(schema)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("observations", np.zeros((5, 4)), r"float64\[4\].*float32\[4\]"),
        ("observations", np.zeros((5, 3), np.float32), r"float32\[3\].*float32\[4\]"),
        ("actions", np.zeros((5, 1), np.int64), r"int64\[1\].*int64\[\]"),
        ("log_prob_behaviour", np.zeros(5, np.float32), r"float32\[\].*float64\[\]"),
        ("rewards", np.zeros(4), "4 entries for 5 steps"),
        ("seed", np.zeros(3, np.int64), "3 entries for 2 fragments"),
        ("terminated", np.zeros(2, np.int64), r"int64\[\].*bool\[\]"),
        ("lengths", np.array([5, 0]), "fragment 1 has 0 steps"),
        ("lengths", np.array([6, -1]), "fragment 1 has -1 steps"),
    ],
)
def test_a_column_of_another_form_is_refused(name, column, message):
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        replace(sample([2, 3]), **{name: column}).validate(CARTPOLE)
