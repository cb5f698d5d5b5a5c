from dataclasses import replace

import numpy as np
import pytest
from data_samples import CARTPOLE, assert_same_bits, random_trajectories
from hypothesis import given, settings
from hypothesis import strategies as st
from importing_samples import episodes, expected, imported, left_behind, step_rows, write

from reweigh.data import ArraySpec, Trajectories, TrajectoryLog, TrajectorySchema
from reweigh.data.importing import (
    READERS,
    Layout,
    Source,
    import_log,
    with_log_prob_behaviour,
)
from reweigh.data.importing.write import drop, keep, open_ends, open_source, refuse, truncated
from reweigh.data.schema import MISSING
from reweigh.data.trajectories import rebatched

SMALL = TrajectorySchema("Small-v0", ArraySpec("float32", (2,)), ArraySpec("int64", (), (2,)), True)


def whole_episodes(lengths, *, schema=SMALL, seed=0):
    made = random_trajectories(schema, lengths, np.random.default_rng(seed))
    return replace(made, actions=made.actions % 2)


def in_fragments():
    """Two episodes in two fragments each, the second without an end, and one whole."""
    made = whole_episodes([3, 4, 2, 5, 1])
    return replace(
        made,
        episode=np.array([0, 0, 1, 1, 2]),
        time_start=np.array([0, 3, 0, 2, 0]),
        policy_version=np.array([0, 1, 0, 1, 1]),
        terminated=np.array([False, True, False, False, True]),
        truncated=np.zeros(5, dtype=bool),
    )


def reader(*parts, schema=SMALL, steps=None):
    """What opens a source of these parts."""
    return lambda source, layout: Source("parts", schema, lambda: iter(parts), steps)


# Batches


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), max_size=6),
    max_steps=st.integers(1, 30),
)
def test_batches_are_as_large_as_may_be(parts, max_steps):
    made, first = [], 0
    for lengths in parts:
        made.append(
            random_trajectories(SMALL, lengths, np.random.default_rng(first), first_episode=first)
        )
        first += len(lengths)
    batches = list(rebatched(made, max_steps))
    for batch in batches:
        assert batch.steps <= max_steps or len(batch) == 1
    if made:
        assert_same_bits(Trajectories.concatenate(batches), Trajectories.concatenate(made))
    else:
        assert batches == []


def test_fragments_of_an_episode_are_in_one_batch():
    batches = list(rebatched([in_fragments()], 8))
    assert [batch.episode.tolist() for batch in batches] == [[0, 0], [1, 1, 2]]


def test_appends_hold_no_more_than_they_may(tmp_path, monkeypatch):
    """A long source goes through the memory a few steps at a time."""
    appended, seen = [], []
    append = TrajectoryLog.append
    monkeypatch.setattr(
        TrajectoryLog,
        "append",
        lambda log, rows: (appended.append(rows.steps), append(log, rows))[1],
    )
    source = write(tmp_path / "s.csv", step_rows(episodes([7] * 30)))
    report = import_log(
        source, tmp_path / "log", max_steps=50, progress=lambda *args: seen.append(args)
    )
    assert appended == [49, 49, 49, 49, 14]
    assert seen == [(49, 210), (98, 210), (147, 210), (196, 210), (210, 210)]
    assert report.steps == 210


def test_large_observations_make_small_appends(tmp_path, monkeypatch):
    schema = replace(SMALL, observation=ArraySpec("float64", (1 << 20,)))
    monkeypatch.setattr(
        TrajectoryLog, "append", lambda log, rows: sizes.append(rows.steps), raising=True
    )
    sizes = []
    made = [
        random_trajectories(schema, [1], np.random.default_rng(i), first_episode=i)
        for i in range(9)
    ]
    made = [replace(part, actions=part.actions % 2) for part in made]
    import_log("parts", tmp_path / "log", reader=reader(*made, schema=schema))
    assert sizes == [7, 2]  # 8 MiB and a little each, and 64 MiB at a time


# All or nothing


def test_a_log_appears_whole_or_not_at_all(tmp_path):
    good, bad = whole_episodes([3, 2]), whole_episodes([2, 4], seed=1)
    bad = replace(bad, episode=bad.episode + 2)
    bad.rewards[3] = np.nan

    def parts():
        yield good
        assert left_behind(tmp_path) != []  # it is being written
        yield bad

    source = Source("parts", SMALL, parts)
    with pytest.raises(ValueError, match="rewards: nan in episode 3, step 1"):
        import_log("x", tmp_path / "log", reader=lambda *_: source, max_steps=3)
    assert left_behind(tmp_path) == []
    source = Source("parts", SMALL, lambda: iter([good, bad]))
    with pytest.raises(ValueError, match="rewards: nan in episode 3, step 1"):
        import_log("x", tmp_path / "a" / "b" / "log", reader=lambda *_: source)
    assert left_behind(tmp_path) == []
    source = Source("parts", SMALL, lambda: iter([good]))
    import_log("x", tmp_path / "a" / "b" / "log", reader=lambda *_: source)
    assert_same_bits(TrajectoryLog.open(tmp_path / "a" / "b" / "log").read(), good)


def test_an_interruption_leaves_nothing(tmp_path):
    def parts():
        yield whole_episodes([3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_log("x", tmp_path / "log", reader=lambda *_: Source("parts", SMALL, parts))
    assert left_behind(tmp_path) == []


def test_what_is_there_is_not_written_over(tmp_path):
    source = write(tmp_path / "s.csv", step_rows(episodes([2])))
    (tmp_path / "log").mkdir()
    import_log(source, tmp_path / "log")  # an empty folder is no obstacle
    before = TrajectoryLog.open(tmp_path / "log").read()
    with pytest.raises(ValueError, match="exists already"):
        import_log(source, tmp_path / "log")
    assert_same_bits(TrajectoryLog.open(tmp_path / "log").read(), before)
    with pytest.raises(ValueError, match="exists already"):
        import_log(source, source)


# Episodes without an end


def test_an_episode_without_end_is_refused(tmp_path):
    made = in_fragments()
    with pytest.raises(ValueError, match="Episode 1 has no end: step 6 is its last"):
        refuse(made)
    ended = made.select(made.episode != 1)
    assert refuse(ended) is ended
    with pytest.raises(ValueError, match="Episode 1 has no end"):
        import_log("x", tmp_path / "log", reader=reader(made))
    assert left_behind(tmp_path) == []


def test_what_else_may_become_of_it():
    made = in_fragments()
    assert open_ends(made).tolist() == [3]
    assert truncated(made).truncated.tolist() == [False, False, False, True, False]
    assert not made.truncated.any()
    assert_same_bits(drop(made), made.select(made.episode != 1))
    assert keep(made) is made


@pytest.mark.parametrize(
    ("what", "note", "counts"),
    [
        (truncated, "1 episodes without an end were taken as truncated", (3, 15, 2, 1)),
        (drop, "1 episodes without an end were left out", (2, 8, 2, 0)),
        (keep, "1 episodes without an end were kept", (3, 15, 2, 0)),
    ],
)
def test_the_report_says_what_became_of_it(tmp_path, what, note, counts):
    report = import_log("x", tmp_path / "log", reader=reader(in_fragments()), unfinished=what)
    assert report.notes[0].startswith(note)
    assert (report.episodes, report.steps, report.terminated, report.truncated) == counts
    assert TrajectoryLog.open(tmp_path / "log").summary().steps == counts[1]


def test_nothing_left_is_no_log(tmp_path):
    made = in_fragments()
    endless = made.select(made.episode == 1)
    with pytest.raises(ValueError, match="Nothing is left of x: 1 episodes without an end"):
        import_log("x", tmp_path / "log", reader=reader(endless), unfinished=drop)
    assert left_behind(tmp_path) == []


def test_what_is_dropped_is_checked_too(tmp_path):
    made = in_fragments()
    made.rewards[made.start[3]] = np.nan
    with pytest.raises(ValueError, match="rewards: nan in episode 1, step 2"):
        import_log("x", tmp_path / "log", reader=reader(made), unfinished=drop)


# Log-probs


def test_missing_log_probs_are_estimated_and_marked(tmp_path):
    made = episodes([3, 2])
    rows = [{k: v for k, v in row.items() if k != "log_prob"} for row in step_rows(made)]
    source = write(tmp_path / "s.jsonl", rows)
    opened = []

    def estimate(log):
        assert log.schema.behaviour == MISSING and np.isnan(log.read().log_prob_behaviour).all()
        opened.append(log.read())
        return lambda batch: -1.0 - batch.actions, "counted by hand"

    report, log = imported(source, tmp_path, estimate=estimate)
    assert_same_bits(log, replace(expected(made), log_prob_behaviour=-1.0 - expected(made).actions))
    assert len(opened) == 1
    assert report.schema.behaviour == "counted by hand" and report.schema.estimated
    assert TrajectoryLog.open(tmp_path / "log").schema == report.schema
    assert "are estimates (counted by hand)" in report.notes[0]
    assert left_behind(tmp_path, "s.jsonl") == ["log"]


def test_an_estimate_that_fails_leaves_nothing(tmp_path):
    missing = replace(SMALL, behaviour=MISSING)
    made = whole_episodes([3, 2])
    made.log_prob_behaviour[:] = np.nan
    for log_prob_behaviour, message in (
        (lambda batch: np.zeros(3), r"log_prob_behaviour gave shape \[3\] for 5 steps"),
        (
            lambda batch: np.log(np.arange(5.0) / 9),
            "-inf in episode 0, step 0; an action of",
        ),
        (lambda batch: np.full(5, np.nan), "log_prob_behaviour: nan in episode 0, step 0"),
    ):
        with (
            np.errstate(divide="ignore"),
            pytest.raises(ValueError, match=message),
        ):
            import_log(
                "x",
                tmp_path / "log",
                reader=reader(made, schema=missing),
                estimate=lambda log, f=log_prob_behaviour: (f, "guessed"),
            )
    assert left_behind(tmp_path) == []


def test_what_is_recorded_is_not_estimated(tmp_path):
    made = whole_episodes([3])
    with pytest.raises(ValueError, match=r"x has log-probabilities \(recorded\)"):
        import_log("x", tmp_path / "log", reader=reader(made), estimate=lambda log: 1 / 0)


def test_a_copy_with_other_log_probs_is_the_same_otherwise(tmp_path):
    import_log("x", tmp_path / "log", reader=reader(in_fragments()), unfinished=keep)
    log = TrajectoryLog.open(tmp_path / "log")
    copy = with_log_prob_behaviour(
        log, tmp_path / "copy", lambda b: -1.0 - b.actions, behaviour="made up", max_steps=7
    )
    before = log.read()
    assert copy.path == tmp_path / "copy" and copy.schema.behaviour == "made up"
    assert_same_bits(copy.read(), replace(before, log_prob_behaviour=-1.0 - before.actions))
    with pytest.raises(ValueError, match="say where the log-probabilities come from"):
        with_log_prob_behaviour(log, tmp_path / "more", lambda b: b.rewards, behaviour=MISSING)
    assert left_behind(tmp_path) == ["copy", "log"]


def test_certain_actions_are_doubted(tmp_path):
    made = whole_episodes([3, 2])
    made.log_prob_behaviour[:] = 0.0
    report = import_log("x", tmp_path / "log", reader=reader(made))
    assert "Every action has probability 1" in report.notes[0]
    made.log_prob_behaviour[4] = -0.5
    report = import_log("x", tmp_path / "log2", reader=reader(made))
    assert report.notes == ()
    continuous = replace(SMALL, action=ArraySpec("int64", ()), discrete_actions=False)
    made.log_prob_behaviour[:] = 0.0
    report = import_log("x", tmp_path / "log3", reader=reader(made, schema=continuous))
    assert report.notes == ()


# What a source is


def test_a_log_is_copied_bit_for_bit(tmp_path):
    log = TrajectoryLog.create(tmp_path / "run" / "log", CARTPOLE)
    log.append(random_trajectories(CARTPOLE, [3, 1, 4], np.random.default_rng(0)))
    for source, name in ((tmp_path / "run" / "log", "one"), (tmp_path / "run", "two")):
        report = import_log(source, tmp_path / name)
        assert report.format == "a log" and report.schema == CARTPOLE
        assert_same_bits(TrajectoryLog.open(tmp_path / name).read(), log.read())


def test_a_log_may_lose_its_log_probs_and_get_others(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    log.append(random_trajectories(CARTPOLE, [3, 1, 4], np.random.default_rng(0)))
    layout = Layout(log_prob_behaviour="", environment="Other-v0")
    report = import_log(tmp_path / "log", tmp_path / "copy", layout=layout)
    assert report.schema == replace(CARTPOLE, behaviour=MISSING, environment="Other-v0")
    assert np.isnan(TrajectoryLog.open(tmp_path / "copy").read().log_prob_behaviour).all()
    for layout in (Layout(log_prob_behaviour="x"), Layout(rewards="x"), Layout(choices=(3,))):
        with pytest.raises(ValueError, match="says itself what its columns are"):
            import_log(tmp_path / "log", tmp_path / "more", layout=layout)


def test_a_source_is_what_it_looks_like(tmp_path):
    def refusal(name):
        with pytest.raises(ValueError) as caught:
            open_source(tmp_path / name, Layout())
        return str(caught.value)

    (tmp_path / "folder").mkdir()
    (tmp_path / "data.pkl").touch()
    (tmp_path / "data.xml").touch()
    assert "There is no file or folder" in refusal("nothing")
    assert "is a folder, but no log, no Minari dataset" in refusal("folder")
    assert "Unpickling runs code" in refusal("data.pkl")
    assert "data.xml is of no known kind (.parquet" in refusal("data.xml")


def test_a_source_may_be_told_what_it_is(tmp_path):
    made = episodes([2, 3])
    source = write(tmp_path / "s.jsonl", step_rows(made)).rename(tmp_path / "s.txt")
    opened = open_source(source, Layout(), format="jsonl")
    assert opened.format == "JSONL, one row a step"
    assert_same_bits(Trajectories.concatenate(list(opened.read())), expected(made))
    with pytest.raises(ValueError, match="There is no format 'xml': log, minari, parquet"):
        open_source(source, Layout(), format="xml")
    assert list(READERS) == ["log", "minari", "parquet", "csv", "jsonl", "hdf5", "npz"]


def test_the_report_is_a_few_plain_lines(tmp_path):
    source = write(tmp_path / "s.csv", step_rows(episodes([2, 3])))
    report, _ = imported(source, tmp_path)
    assert str(report).splitlines() == [
        f"{tmp_path / 'log'}: 5 steps in 2 episodes of s (1 terminated, 1 truncated), from CSV, "
        "one row a step",
        "observations float64[2], discrete actions int64[] (3 choices), log-probabilities recorded",
        "observations from observation; actions from action; rewards from reward; "
        "log_prob_behaviour from log_prob; episode from episode; time from step; "
        "terminated from terminated; truncated from truncated; next_observations from "
        "next_observation",
    ]
