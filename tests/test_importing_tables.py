import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import assert_same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing_samples import (
    episode_rows,
    episodes,
    expected,
    imported,
    in_pieces,
    left_behind,
    step_rows,
    write,
)

from reweigh.data import ArraySpec, TrajectoryLog
from reweigh.data.importing import Layout, import_log, open_source
from reweigh.data.importing.write import truncated
from reweigh.data.schema import rows_at_a_time

SUFFIXES = ["parquet", "jsonl", "csv"]


def refused(folder, rows, message, *, suffix="jsonl", layout=None, **options):
    """Importing these rows fails with the message, and leaves nothing behind."""
    source = write(folder / f"source.{suffix}", rows)
    with pytest.raises(ValueError, match=message):
        import_log(source, folder / "log", layout=layout or Layout(), **options)
    source.unlink()
    assert left_behind(folder) == []


def changed(rows, number, **values):
    """The rows, one of them with other values; `None` leaves a value out."""
    return [{**row, **values} if i == number else row for i, row in enumerate(rows)]


def without(row, *names):
    return {key: value for key, value in row.items() if key not in names}


# What was recorded is what the log holds


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_of_steps_come_back_bit_for_bit(tmp_path, suffix, discrete):
    made = episodes([3, 1, 4, 2], discrete=discrete)
    source = write(tmp_path / f"source.{suffix}", step_rows(made))
    report, log = imported(source, tmp_path)
    assert_same_bits(log, expected(made))
    assert (report.steps, report.episodes, report.terminated, report.truncated) == (10, 4, 2, 2)
    assert report.schema.action.choices == ((3,) if discrete else ())
    assert report.schema.discrete_actions == discrete
    assert report.schema.observation == ArraySpec("float64", (2,))
    assert report.schema.environment == "source"
    assert report.unread == () and report.notes == ()


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_rows_of_episodes_come_back_bit_for_bit(tmp_path, suffix, discrete):
    made = episodes([3, 1, 4, 2], discrete=discrete)
    source = write(tmp_path / f"source.{suffix}", episode_rows(made))
    report, log = imported(source, tmp_path)
    assert_same_bits(log, expected(made))
    assert report.notes == ()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    discrete=st.booleans(),
    lists=st.booleans(),
    rows=st.integers(1, 9),
)
def test_any_lengths_in_any_blocks_come_back(tmp_path_factory, lengths, discrete, lists, rows):
    """However the rows fall into the parts that are read: episodes end where they end."""
    folder = tmp_path_factory.mktemp("import")
    made = episodes(lengths, discrete=discrete)
    source = write(folder / "s.parquet", (episode_rows if lists else step_rows)(made))
    _, log = imported(source, folder, reader=in_pieces("parquet", rows), max_steps=rows)
    assert_same_bits(log, expected(made))


def test_small_blocks_of_text_come_back(tmp_path):
    made = episodes([30, 1, 50])
    for suffix in ("csv", "jsonl"):
        (tmp_path / suffix).mkdir()
        source = write(tmp_path / suffix / f"s.{suffix}", step_rows(made))
        _, log = imported(source, tmp_path / suffix, reader=in_pieces(suffix, 6))
        assert_same_bits(log, expected(made))


def test_lists_of_text_are_rows_of_episodes_too(tmp_path):
    made = episodes([3, 2], shape=())
    source = write(tmp_path / "source.csv", episode_rows(made))
    assert_same_bits(imported(source, tmp_path)[1], expected(made))


def test_numpy_writes_lists_without_commas(tmp_path):
    rows = step_rows(episodes([2, 1]))
    texts = [
        {**row, "observation": str(np.array([1.5, -2])), "next_observation": "[3 4e0]"}
        for row in rows
    ]
    _, log = imported(write(tmp_path / "source.csv", texts), tmp_path)
    assert log.observations.tolist() == [[1.5, -2.0]] * 3
    assert log.final_observations.tolist() == [[3.0, 4.0]] * 2


def test_a_compressed_csv_is_a_csv(tmp_path):
    made = episodes([2, 3])
    plain = write(tmp_path / "source.csv", step_rows(made))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    report, log = imported(tmp_path / "packed.csv.gz", tmp_path)
    assert_same_bits(log, expected(made))
    assert report.schema.environment == "packed"


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    made = episodes([3, 4])
    rows = step_rows(made)
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "part-0.parquet", rows[:5])  # in the midst of an episode
    write(tmp_path / "parts" / "part-1.parquet", rows[5:])
    assert_same_bits(imported(tmp_path / "parts", tmp_path)[1], expected(made))


def test_other_kinds_of_lists_are_lists(tmp_path):
    made = episodes([3, 2])
    rows = pa.Table.from_pylist(step_rows(made))
    large = rows.set_column(
        rows.schema.get_field_index("observation"),
        "observation",
        rows.column("observation").cast(pa.large_list(pa.float64())),
    )
    fixed = large.set_column(
        rows.schema.get_field_index("next_observation"),
        "next_observation",
        rows.column("next_observation").cast(pa.list_(pa.float64(), 2)),
    )
    pq.write_table(fixed, tmp_path / "source.parquet")
    assert_same_bits(imported(tmp_path / "source.parquet", tmp_path)[1], expected(made))


# Columns


def test_columns_by_other_names_are_named(tmp_path):
    made = episodes([3, 2])
    rows = [
        {
            "who": row["episode"],
            "when": row["step"],
            "saw": row["observation"],
            "did": row["action"],
            "got": row["reward"],
            "lp": row["log_prob"],
            "died": row["terminated"],
            "cut": row["truncated"],
            "then": row["next_observation"],
        }
        for row in step_rows(made)
    ]
    layout = Layout(
        observations=("saw",),
        actions=("did",),
        rewards="got",
        log_prob_behaviour="lp",
        episode="who",
        time="when",
        terminated="died",
        truncated="cut",
        next_observations=("then",),
        environment="Mine-v0",
    )
    report, log = imported(write(tmp_path / "s.jsonl", rows), tmp_path, layout=layout)
    assert_same_bits(log, expected(made))
    assert report.columns["log_prob_behaviour"] == ("lp",)
    assert report.schema.environment == "Mine-v0"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sign", ["_", ".", ""])
def test_numbered_columns_are_one_vector(tmp_path, sign, first):
    made = episodes([3, 2], discrete=False)
    rows = []
    for row in step_rows(made):
        wide = {k: v for k, v in row.items() if not isinstance(v, list)}
        for name, stem in (("observation", "obs"), ("next_observation", "next_obs")):
            wide |= {f"{stem}{sign}{first + i}": x for i, x in enumerate(row[name])}
        rows.append(wide | {f"action{sign}{first + i}": x for i, x in enumerate(row["action"])})
    report, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert_same_bits(log, expected(made))
    assert report.columns["observations"] == (f"obs{sign}{first}", f"obs{sign}{first + 1}")


def test_named_columns_are_laid_end_to_end_in_their_order(tmp_path):
    rows = [{**row, "x": [1, 2], "y": 3} for row in step_rows(episodes([2]))]
    layout = Layout(observations=("y", "x"), next_observations=("",))
    _, log = imported(write(tmp_path / "s.jsonl", rows), tmp_path, layout=layout)
    assert log.observations.tolist() == [[3, 1, 2]] * 2


def test_probabilities_become_log_probs(tmp_path):
    made = episodes([3, 2])
    rows = [
        without({**row, "pscore": np.exp(row["log_prob"])}, "log_prob") for row in step_rows(made)
    ]
    _, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    probabilities = np.array([row["pscore"] for row in rows])
    assert log.log_prob_behaviour.tobytes() == np.log(probabilities).tobytes()


def test_log_probs_count_before_probabilities_and_neither_if_there_shall_be_none(tmp_path):
    made = episodes([3, 2])
    path = write(tmp_path / "s.csv", [{**row, "prob": 0.5} for row in step_rows(made)])
    report, log = imported(path, tmp_path)
    assert_same_bits(log, expected(made))
    assert report.unread == ("prob",)
    report = import_log(path, tmp_path / "none", layout=Layout(log_prob_behaviour=""))
    assert report.schema.behaviour == "missing" and report.unread == ("log_prob", "prob")
    report = import_log(path, tmp_path / "half", layout=Layout(probabilities="prob"))
    assert report.schema.behaviour == "recorded" and report.unread == ("log_prob",)


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path):
    path = write(tmp_path / "s.parquet", step_rows(episodes([1] * 9)))
    opened = in_pieces("parquet", 4)(path, Layout())
    assert [part.steps for part in opened.read()] == [3, 4, 1, 1]  # the last episode may go on


def test_large_rows_are_read_fewer_at_a_time():
    assert rows_at_a_time(100, 1000) == 1000
    assert rows_at_a_time((1 << 20) - 1, 1000) == 64
    assert rows_at_a_time(1 << 30, 1000) == 1


def test_densities_may_be_above_one(tmp_path):
    rows = [{**row, "log_prob": 1.5} for row in step_rows(episodes([2], discrete=False))]
    assert (
        imported(write(tmp_path / "s.jsonl", rows), tmp_path)[1].log_prob_behaviour == 1.5
    ).all()
    (tmp_path / "more").mkdir()
    rows = [{**row, "p": 4.0} for row in rows]
    layout = Layout(probabilities="p")
    _, log = imported(write(tmp_path / "p.jsonl", rows), tmp_path / "more", layout=layout)
    assert (log.log_prob_behaviour == np.log(4.0)).all()


def test_a_column_of_another_policy_version_cuts_an_episode(tmp_path):
    made = episodes([5, 2])
    rows = step_rows(made)
    for row, version in zip(rows, [0, 0, 1, 1, 1, 1, 1], strict=True):
        row["policy_version"] = version
    _, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    whole = expected(made)
    assert log.policy_version.tolist() == [0, 1, 1]
    assert log.lengths.tolist() == [2, 3, 2]
    assert log.time_start.tolist() == [0, 2, 0]
    assert log.terminated.tolist() == [False, True, False]
    assert log.observations.tobytes() == whole.observations.tobytes()
    after = [whole.observations[2], *whole.final_observations]
    assert log.final_observations.tolist() == np.stack(after).tolist()


def test_multi_discrete_actions_have_choices_each(tmp_path):
    rows = [{**row, "action": [row["step"] % 2, 4]} for row in step_rows(episodes([3]))]
    report, log = imported(write(tmp_path / "s.jsonl", rows), tmp_path)
    assert report.schema.action == ArraySpec("int64", (2,), (2, 5))
    assert log.actions.tolist() == [[0, 4], [1, 4], [0, 4]]


def test_choices_may_be_given_and_make_floats_discrete(tmp_path):
    rows = [{**row, "action": float(row["action"])} for row in step_rows(episodes([3]))]
    layout = Layout(choices=(7,))
    report, log = imported(write(tmp_path / "s.parquet", rows), tmp_path, layout=layout)
    assert report.schema.action == ArraySpec("int64", (), (7,))
    assert report.schema.discrete_actions
    assert log.actions.dtype == np.int64


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [2, 100])
def test_whole_floats_look_like_choices(tmp_path, suffix, rows):
    """They stay continuous, the report says what else they may be, and that can be done."""
    reader = in_pieces(suffix, rows)
    made = step_rows(episodes([3, 4, 2]))
    source = write(tmp_path / f"s.{suffix}", [{**r, "action": float(r["action"])} for r in made])
    report, log = imported(source, tmp_path, reader=reader)
    assert report.schema.action == ArraySpec("float64", ()) and log.actions.dtype == np.float64
    assert not report.schema.discrete_actions
    assert report.notes == (
        "The actions are whole numbers written as float64, which look like choices: they are taken "
        "as continuous. If they are choices, import them by --choices 3.",
    )
    assert report.notes[0] in str(report)
    layout = Layout(choices=(3,))
    report = import_log(source, tmp_path / "choices", layout=layout, reader=reader)
    assert report.schema.action == ArraySpec("int64", (), (3,)) and report.notes == ()
    assert TrajectoryLog.open(report.log).read().actions.tolist() == log.actions.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors_of_whole_floats_look_like_choices_each(tmp_path, suffix):
    rows = [{**r, "action": [float(r["action"]), 4.0]} for r in step_rows(episodes([3, 2]))]
    source = write(tmp_path / f"s.{suffix}", rows)
    report, _ = imported(source, tmp_path)
    assert report.notes[0].endswith("import them by --choices 3 5.")
    report = import_log(source, tmp_path / "choices", layout=Layout(choices=(3, 5)))
    assert report.schema.action == ArraySpec("int64", (2,), (3, 5)) and report.notes == ()


@pytest.mark.parametrize("value", [0.5, -1.0, 1e300])
def test_other_floats_do_not_look_like_choices(tmp_path, value):
    """Although what is read first does."""
    rows = [{**row, "action": float(row["action"])} for row in ROWS]
    source = write(tmp_path / "s.parquet", changed(rows, 7, action=value))
    assert imported(source, tmp_path, reader=in_pieces("parquet", 2))[0].notes == ()


def test_whole_numbers_are_states(tmp_path):
    rows = [{**row, "observation": 5, "next_observation": 2} for row in step_rows(episodes([3]))]
    report, _ = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert report.schema.observation == ArraySpec("int64", (), (6,))
    (tmp_path / "more").mkdir()
    layout = Layout(observation_choices=(16,))
    report, _ = imported(write(tmp_path / "t.csv", rows), tmp_path / "more", layout=layout)
    assert report.schema.observation.choices == (16,)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_number_that_turns_out_not_whole_is_a_float(tmp_path, suffix):
    """Types are told from the first block of a text; later ones may teach better."""
    small = {"reader": in_pieces(suffix, 4)}
    rows = [
        {
            "episode": i // 10,
            "state": i % 4,
            "action": i % 2,
            "reward": 0,
            "log_prob": -1,
            "terminated": int(i % 10 == 9),
            "truncated": 0,
        }
        for i in range(200)
    ]
    rows[150] |= {"reward": 0.5, "log_prob": -0.5}
    source = write(tmp_path / f"s.{suffix}", rows)
    report, log = imported(source, tmp_path, **small)
    assert log.rewards.sum() == 0.5 and log.log_prob_behaviour.sum() == -199.5
    assert report.schema.observation == ArraySpec("int64", (), (4,))
    rows[151]["state"] = 1.5
    (tmp_path / "more").mkdir()
    report, log = imported(write(tmp_path / f"t.{suffix}", rows), tmp_path / "more", **small)
    assert report.schema.observation == ArraySpec("float64", ())
    assert report.schema.action == ArraySpec("int64", (), (2,))
    rows[199]["action"] = 0.25
    (tmp_path / "most").mkdir()
    report, log = imported(write(tmp_path / f"u.{suffix}", rows), tmp_path / "most", **small)
    assert not report.schema.discrete_actions and log.actions[199] == 0.25


def test_what_is_not_read_is_said(tmp_path):
    rows = [{**row, "weather": "rain"} for row in step_rows(episodes([2]))]
    report, _ = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert report.unread == ("weather",)
    assert "not read: weather" in str(report)


# Episodes and their ends


@pytest.mark.parametrize("names", [[7, 3, 9], ["b", "a", "c"]])
def test_episodes_keep_their_numbers_and_names_are_numbered(tmp_path, names):
    rows = [{**row, "episode": names[row["episode"]]} for row in step_rows(episodes([2, 1, 3]))]
    _, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    by_number = dict(zip(log.episode.tolist(), log.lengths.tolist(), strict=True))
    numbers = names if isinstance(names[0], int) else [0, 1, 2]
    assert by_number == dict(zip(numbers, [2, 1, 3], strict=True))


def test_without_a_column_of_episodes_the_ends_tell(tmp_path):
    made = episodes([3, 1, 4])
    rows = [without(row, "episode", "step") for row in step_rows(made)]
    assert_same_bits(imported(write(tmp_path / "s.jsonl", rows), tmp_path)[1], expected(made))


def test_steps_may_count_from_one_or_through_the_file(tmp_path):
    made = episodes([3, 2])
    for name, rows in (
        ("one", [{**row, "step": row["step"] + 1} for row in step_rows(made)]),
        ("all", [{**row, "step": i} for i, row in enumerate(step_rows(made))]),
    ):
        (tmp_path / name).mkdir()
        source = write(tmp_path / name / "s.csv", rows)
        assert_same_bits(imported(source, tmp_path / name)[1], expected(made))


def clocked(clocks, name="time"):
    """Rows of episodes of 3, 4 and 2 steps, with a clock in place of the count of steps."""
    rows = [without(row, "step") for row in step_rows(episodes([3, 4, 2]))]
    return [{**row, name: clock} for row, clock in zip(rows, clocks, strict=True)]


COUNTED = [0, 1, 2, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "clocks",
    [
        [f"2026-03-01 12:00:0{t}" for t in COUNTED],
        [1.5 + t**2 for t in COUNTED],
        [0.1 * i for i in range(9)],
        [float(t) for t in COUNTED],
    ],
)
def test_a_clock_goes_on_from_step_to_step(tmp_path, suffix, clocks):
    source = write(tmp_path / f"s.{suffix}", clocked(clocks))
    report, log = imported(source, tmp_path)
    assert_same_bits(log, expected(episodes([3, 4, 2])))
    text = suffix == "parquet" and isinstance(clocks[0], str)  # there text stays what it is
    assert report.unread == (("time",) if text else ())
    assert report.columns.get("time") == (None if text else ("time",))


@pytest.mark.parametrize("kind", [pa.timestamp("ns", "UTC"), pa.date32(), pa.duration("ms")])
def test_points_of_time_are_a_clock(tmp_path, kind):
    for name, times, message in (
        ("on", COUNTED, None),
        ("twice", [0, 1, 2, 0, 1, 1, 3, 0, 1], r"time: it is .* after .* in episode 1, step 2"),
        ("none", [0, 1, 2, 0, 1, None, 3, 0, 1], "time: a value is missing, in episode 1, step 2"),
    ):
        table = pa.Table.from_pylist(clocked(COUNTED))
        clock = pa.array(times, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table.set_column(table.schema.get_field_index("time"), "time", clock), path)
        if message is None:
            assert import_log(path, tmp_path / "log").columns["time"] == ("time",)
        else:
            with pytest.raises(ValueError, match=message):
                import_log(path, tmp_path / "other")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [2, 100])
def test_a_clock_that_goes_back_or_stands_still(tmp_path, suffix, rows):
    """The part that is read ends between the two rows, or does not."""
    reader = in_pieces(suffix, rows)
    for wrong in (1.5, 0.25):
        clocks = [0.5, 1.5, 2.5, 0.5, 1.5, wrong, 3.5, 0.5, 1.5]
        refused(
            tmp_path,
            clocked(clocks),
            rf"^time: it is {wrong} after 1.5: the rows are not sorted, or some are there twice "
            r"\(if the column is no clock of the steps: --time ''\), in episode 1, step 2.$",
            suffix=suffix,
            reader=reader,
        )
    source = write(tmp_path / f"s.{suffix}", clocked(clocks))
    report = import_log(source, tmp_path / "log", layout=Layout(time=""), reader=reader)
    assert report.unread == ("time",)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [2, 100])
def test_whole_floats_count_steps(tmp_path, suffix, rows):
    reader = in_pieces(suffix, rows)
    clocks = [0.0, 1.0, 2.0, 0.0, 1.0, 3.0, 4.0, 0.0, 1.0]
    message = "^step: it is 3 after 1: steps are missing.* in episode 1, step 2.$"
    refused(tmp_path, clocked(clocks, "step"), message, suffix=suffix, reader=reader)
    (tmp_path / "halves").mkdir()
    source = write(tmp_path / "halves" / f"s.{suffix}", clocked([*clocks[:-1], 1.5], "step"))
    report, _ = imported(source, tmp_path / "halves", reader=reader)
    assert report.columns["time"] == ("step",)


def test_a_count_of_steps_with_a_gap_for_a_value(tmp_path):
    message = "^step: a value is missing, in episode 1, step 2.$"
    for suffix in SUFFIXES:
        rows = clocked([0.0, 1.0, 2.0, 0.0, 1.0, None, 3.0, 0.0, 1.0], "step")
        refused(tmp_path, rows, message, suffix=suffix)


def test_words_are_no_clock(tmp_path):
    rows = clocked(["noon"] * 9)
    message = "^time: 'noon' is neither a number nor a time, in episode 0, step 0.$"
    refused(tmp_path, rows, message, layout=Layout(time="time"))
    report, _ = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert report.unread == ("time",)


def test_done_is_an_end_whose_reason_is_not_known(tmp_path):
    rows = [
        without({**row, "done": row["terminated"] or row["truncated"]}, "terminated", "truncated")
        for row in step_rows(episodes([2, 3]))
    ]
    report, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert log.terminated.tolist() == [True, True]
    assert "'done' says that an episode ended, not why" in report.notes[0]


def test_done_beside_truncated_is_terminated_where_it_is_not(tmp_path):
    rows = [
        without({**row, "done": row["terminated"] or row["truncated"]}, "terminated")
        for row in step_rows(episodes([2, 3]))
    ]
    report, log = imported(write(tmp_path / "s.csv", rows), tmp_path)
    assert log.terminated.tolist() == [True, False]
    assert log.truncated.tolist() == [False, True]
    assert report.notes == ()


def test_the_last_observation_stands_for_one_that_is_not_there(tmp_path):
    rows = step_rows(episodes([2, 3]), after=False)
    report, log = imported(write(tmp_path / "s.jsonl", rows), tmp_path)
    assert log.final_observations.tolist() == log.observations[[1, 4]].tolist()
    assert "its last observation stands for it" in report.notes[0]


def test_lists_may_have_marks_a_step_and_one_observation_after(tmp_path):
    made = episodes([3, 2])
    rows = [
        {
            **row,
            "observations": row["observations"][:-1],
            "final_observation": row["observations"][-1],
            "terminated": [False] * (len(row["rewards"]) - 1) + [row["terminated"]],
        }
        for row in episode_rows(made)
    ]
    report, log = imported(write(tmp_path / "s.jsonl", rows), tmp_path)
    assert_same_bits(log, expected(made))
    assert report.notes == ()


def test_lists_may_have_an_observation_after_each_step(tmp_path):
    made = episodes([3, 2])
    rows = [
        {
            **row,
            "observations": row["observations"][:-1],
            "next_observations": row["observations"][1:],
        }
        for row in episode_rows(made)
    ]
    assert_same_bits(imported(write(tmp_path / "s.parquet", rows), tmp_path)[1], expected(made))


def test_rows_without_any_mark_of_an_end_need_a_word(tmp_path):
    rows = [without(row, "terminated", "truncated") for row in step_rows(episodes([2, 3]))]
    refused(tmp_path, rows, r"Episode 0 has no end: step 1 is its last.*--unfinished truncated")
    source = write(tmp_path / "s.jsonl", rows)
    report, log = imported(source, tmp_path, unfinished=truncated)
    assert log.truncated.all() and log.lengths.tolist() == [2, 3]
    assert report.notes == (
        "2 episodes without an end were taken as truncated where the source stops.",
    )


# Refusals: each says in which episode and step, and leaves nothing behind

ROWS = step_rows(episodes([3, 4, 2]))
LISTS = episode_rows(episodes([3, 4, 2]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"log_prob": float("-inf")},
            "-inf in episode 1, step 2; an action of probability 0",
        ),
        ({"log_prob": 0.1}, "log_prob_behaviour: 0.1 in episode 1, step 2; .* is at most 0"),
        ({"log_prob": float("nan")}, "log_prob_behaviour: nan in episode 1, step 2; only finite"),
        ({"reward": float("nan")}, "rewards: nan in episode 1, step 2"),
        ({"reward": None}, "rewards: nan in episode 1, step 2"),
        ({"reward": float("inf")}, "rewards: inf in episode 1, step 2"),
        ({"observation": [1.0, float("nan")]}, r"observations: \[ ?1. +nan\] in episode 1, step 2"),
        ({"observation": [1.0, None]}, r"observations: \[ ?1. +nan\] in episode 1, step 2"),
        ({"observation": [1.0]}, "observation: 1 numbers, .* have 2, in episode 1, step 2"),
        ({"observation": None}, "observation: a value is missing, in episode 1, step 2"),
        ({"action": None}, "action: a value is missing, in episode 1, step 2"),
        ({"action": -1}, "actions: -1 in episode 1, step 2; its choices count from 0"),
        ({"step": 3}, "step: it is 3 after 1: steps are missing.* in episode 1, step 2"),
        ({"step": 1}, "step: it is 1 after 1.* in episode 1, step 2"),
        ({"terminated": True}, "Episode 1 goes on after step 2, where it ended"),
        ({"terminated": None}, "terminated: a value is missing, in row 5"),
        ({"episode": None}, "episode: a value is missing, in row 5"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_step_that_cannot_be(tmp_path, suffix, values, message):
    refused(tmp_path, changed(ROWS, 5, **values), message, suffix=suffix)


def test_a_probability_that_cannot_be(tmp_path):
    rows = [{**row, "probability": 0.5} for row in ROWS]
    layout = Layout(probabilities="probability")
    for value, message in (
        (0.0, "-inf in episode 1, step 2; an action of probability 0"),
        (1.5, "probability: 1.5 is not a probability, in episode 1, step 2"),
        (-0.1, "probability: -0.1 is not a probability, in episode 1, step 2"),
        (None, "log_prob_behaviour: nan in episode 1, step 2"),
    ):
        refused(tmp_path, changed(rows, 5, probability=value), message, layout=layout)


def test_a_mark_that_is_neither(tmp_path):
    rows = [{**row, "terminated": int(row["terminated"])} for row in ROWS]
    refused(
        tmp_path, changed(rows, 5, terminated=2), "terminated: 2.*neither true nor false, in row 5"
    )


def test_a_choice_that_is_not_whole(tmp_path):
    rows = changed(ROWS, 5, action=0.5)
    layout = Layout(choices=(3,))
    refused(tmp_path, rows, "actions: 0.5 is not a whole number.*episode 1, step 2", layout=layout)


def test_a_choice_beyond_those_given(tmp_path):
    layout = Layout(choices=(2,))
    refused(tmp_path, ROWS, "actions: 2 in episode 0, step .*there are \\[2\\]", layout=layout)
    layout = Layout(choices=(2, 2))
    refused(tmp_path, ROWS, "choices are \\(2, 2\\) for an entry of shape \\[\\]", layout=layout)


def test_an_episode_that_comes_twice(tmp_path):
    for names in ([0, 1, 0], ["a", "b", "a"], [5, 3, 5]):
        rows = [{**row, "episode": names[row["episode"]]} for row in ROWS]
        refused(tmp_path, rows, rf"episode {names[2]} begins a second time.*in row 7", suffix="csv")
    refused(tmp_path, [{**r, "episode": -1} for r in ROWS], "episode: -1; episodes count from 0")
    refused(
        tmp_path, [{**r, "episode": 0.5} for r in ROWS], "episode: .*0.5.* is not a whole number"
    )


def test_an_episode_that_does_not_begin_at_its_beginning(tmp_path):
    refused(tmp_path, ROWS[:3] + ROWS[4:], "step: it begins at 1 after 2.*in episode 1, step 0")
    refused(tmp_path, ROWS[2:], "step: it begins at 2 after -1.*in episode 0, step 0")
    refused(tmp_path, ROWS[::-1], "step: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"actions": [0, 1, 0]}, "actions: 3 entries in episode 1, which has 4 rewards.*at step 3"),
        (
            {"log_prob_behaviour": [-1.0] * 5},
            "log_prob_behaviour: 5 entries in episode 1.*at step 4",
        ),
        ({"observations": [[0.0, 0.0]] * 4}, "observations: .* entries in episode 0"),
        (
            {"observations": [[0.0, 0.0], [1.0]] + [[0.0, 0.0]] * 3},
            "1 numbers.* in episode 1, step 1",
        ),
        ({"rewards": [0.0, 0.0, float("nan"), 0.0]}, "rewards: nan in episode 1, step 2"),
        ({"rewards": None}, "rewards: a value is missing, in episode 1, step 0"),
        ({"rewards": [], "actions": []}, "Episode 1, step 0: it has no steps"),
        (
            {"log_prob_behaviour": [-1.0, -1.0, float("-inf"), -1.0]},
            "-inf in episode 1, step 2; an action of probability 0",
        ),
        ({"actions": [0, 1, None, 0]}, "actions: a value is missing, in episode 1, step 2"),
        ({"terminated": [False, True, False, True]}, "Episode 1 goes on after step 1"),
        ({"truncated": False, "terminated": False}, "Episode 1 has no end: step 3"),
        ({"episode": 0}, "episode 0 begins a second time.*in row 1"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_episode_that_cannot_be(tmp_path, suffix, values, message):
    rows = LISTS
    if isinstance(values.get("terminated"), list):
        rows = [
            {**row, "terminated": [False] * (len(row["rewards"]) - 1) + [row["terminated"]]}
            for row in rows
        ]
    refused(tmp_path, changed(rows, 1, **values), message, suffix=suffix)


@pytest.mark.parametrize("name", ["observation", "action", "reward"])
def test_a_column_that_is_not_there(tmp_path, name):
    rows = [without(row, name) for row in ROWS]
    there = ", ".join(rows[0])
    refused(tmp_path, rows, rf"No column for {name}s .*{re.escape(there)}.*--{name}s")
    refused(
        tmp_path,
        ROWS,
        rf"No column 'nothing' for {name}s: .*episode, step",
        layout=replace(Layout(), **{f"{name}s": "nothing" if name == "reward" else ("nothing",)}),
    )


def test_two_columns_for_one_thing(tmp_path):
    layout = Layout(log_prob_behaviour="log_prob", probabilities="log_prob")
    refused(tmp_path, ROWS, "name one of them", layout=layout)


WORD = "Column {} holds text such as '{}' in row {} \\(from 0\\). Numbers are needed"
MIXED = "s.{}: column {} holds '{}' in row {} \\(from 0\\), which is no number as others there are"


@pytest.mark.parametrize("value", ["much", "[x, 1.5]"])
@pytest.mark.parametrize("name", ["observation", "action", "reward", "log_prob", "terminated"])
def test_the_first_word_among_numbers_is_named(tmp_path, name, value):
    """In the first block of the text, where Arrow takes all of the column for text."""
    rows = changed(changed(ROWS, 5, **{name: value}), 7, **{name: "more"})
    word = re.escape(value)
    refused(tmp_path, rows, f"source.{MIXED.format('jsonl', name, word, 5)[2:]}")
    if name == "observation" and value != "much":
        rows = changed(ROWS, 5, observation=value)
        message = rf"holds lists that are not of numbers: '{word}' in row 5 \(from 0\)"
        refused(tmp_path, rows, message, suffix="csv")
    elif value == "much":
        refused(tmp_path, rows, WORD.format(name, word, 5), suffix="csv")


@pytest.mark.parametrize("name", ["action", "reward", "log_prob", "episode", "terminated"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_first_word_in_a_later_block_is_named(tmp_path, suffix, name):
    """Where Arrow has settled for numbers."""
    rows = changed(step_rows(episodes([3] * 30)), 70, **{name: "much"})
    source = write(tmp_path / f"s.{suffix}", rows)
    with pytest.raises(ValueError, match=MIXED.format(suffix, name, "much", 70)):
        import_log(source, tmp_path / "log", reader=in_pieces(suffix, 4))
    assert left_behind(tmp_path, f"s.{suffix}") == []


def test_a_word_in_the_list_of_an_episode(tmp_path):
    rows = changed(LISTS, 1, rewards="[1.0, much, 0.0, 0.0]")
    message = (
        r"Column rewards holds lists that are not of numbers: '\[1.0, much, 0.0, 0.0\]' in row 1 "
    )
    refused(tmp_path, rows, message, suffix="csv")
    refused(
        tmp_path, changed(LISTS, 1, rewards="much"), WORD.format("rewards", "much", 1), suffix="csv"
    )


def test_the_first_word_in_a_later_part_is_named(tmp_path):
    rows = [{**without(row, "next_observation"), "observation": "[1, 2]"} for row in ROWS]
    rows = changed(rows, 5, observation="much")
    refused(
        tmp_path,
        rows,
        WORD.format("observation", "much", 5),
        suffix="parquet",
        reader=in_pieces("parquet", 2),
    )


def test_text_where_numbers_are_needed(tmp_path):
    rows = [{**row, "action": "left"} for row in ROWS]
    refused(tmp_path, rows, WORD.format("action", "left", 0))
    rows = [{**row, "reward": "1.5"} for row in ROWS]  # as text, which only Parquet and JSONL have
    refused(tmp_path, rows, WORD.format("reward", "1.5", 0), suffix="parquet")
    refused(tmp_path, changed(rows, 5, reward="x"), WORD.format("reward", "x", 5), suffix="parquet")
    refused(
        tmp_path,
        [{**r, "observation": "[[1, 2], [3, 4]]"} for r in ROWS],
        "lists of lists can be read from Parquet and JSONL",
        suffix="csv",
    )
    refused(
        tmp_path, [{**r, "observation": "[a, b]"} for r in ROWS], "not of numbers", suffix="csv"
    )


def test_files_without_rows(tmp_path):
    for name, text in (("a.csv", ""), ("b.csv", "observation,action,reward\n"), ("c.jsonl", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=r"cannot be read as CSV|has no rows|No column"):
            import_log(tmp_path / name, tmp_path / "log")
    empty = pa.Table.from_pylist(ROWS).slice(0, 0)
    pq.write_table(empty, tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"d.parquet has no rows"):
        import_log(tmp_path / "d.parquet", tmp_path / "log")
    assert left_behind(tmp_path, "a.csv", "b.csv", "c.jsonl", "d.parquet") == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_something_else(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"\x00\xff{\n,,\n" * 9)
    with pytest.raises(ValueError, match=f"a.{suffix}"):
        import_log(tmp_path / f"a.{suffix}", tmp_path / "log")


def test_a_row_too_short(tmp_path):
    source = write(tmp_path / "s.csv", ROWS)
    source.write_text(source.read_text() + "1,2\n")
    with pytest.raises(ValueError, match=r"s.csv cannot be read as CSV: .*columns"):
        import_log(source, tmp_path / "log")
    assert left_behind(tmp_path, "s.csv") == []


def test_a_file_cut_short(tmp_path):
    source = write(tmp_path / "s.jsonl", ROWS)
    source.write_text(source.read_text()[:-20])
    with pytest.raises(ValueError, match=r"s.jsonl cannot be read as JSONL"):
        import_log(source, tmp_path / "log")
    assert json.loads(source.read_text().splitlines()[0])
    assert left_behind(tmp_path, "s.jsonl") == []


# What Arrow says of a file, with the file


def damaged(path):
    """A file whose middle is lost."""
    content = bytearray(path.read_bytes())
    content[20:400] = b"\xff" * 380
    path.write_bytes(content)
    return path


def parts(folder, *tables):
    folder.mkdir()
    for name, rows in zip("ab", tables, strict=True):
        write(folder / f"{name}.parquet", rows)
    return folder


def a_file_of(kind, folder):
    """A source that is broken, and the file that has to be named."""
    path = folder / f"s.{kind}"
    if kind == "csv.gz":
        packed = gzip.compress(write(folder / "plain.csv", ROWS).read_bytes())
        path.write_bytes(packed[: len(packed) // 2])
    elif kind == "parquet":
        damaged(write(path, ROWS))
    else:
        path.write_bytes(b"junk" * 40)
    return path


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "pq", "csv", "jsonl"])
def test_a_broken_file_is_named_once(tmp_path, kind):
    source = a_file_of(kind, tmp_path)
    with pytest.raises(ValueError, match=r"cannot be read as|No column") as raised:
        import_log(source, tmp_path / "log")
    assert str(raised.value).count(str(source)) == 1 and "\n" not in str(raised.value)


@pytest.mark.parametrize("break_it", [damaged, lambda path: path.write_bytes(b"junk" * 40)])
def test_of_several_files_the_broken_one_is_named(tmp_path, break_it):
    folder = parts(tmp_path / "parts", ROWS[:5], ROWS[5:])
    break_it(folder / "b.parquet")
    with pytest.raises(
        ValueError, match=r"parts/b.parquet cannot be read as Parquet: \S"
    ) as raised:
        import_log(folder, tmp_path / "log")
    assert str(raised.value).count(str(folder)) == 1 and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: without(row, "reward"),
            r"b.parquet has no column 'reward', as .*a.parquet has",
        ),
        (
            lambda row: {**row, "reward": "x"},
            r"b.parquet: column reward holds string, and double in .*a.parquet. Write the same",
        ),
        (
            lambda row: {**row, "observation": 0.5},
            r"b.parquet: column observation holds double, and list<element: double> in .*a.parquet",
        ),
    ],
)
def test_files_that_are_not_of_one_table(tmp_path, change, message):
    folder = parts(tmp_path / "parts", ROWS[:5], [change(row) for row in ROWS[5:]])
    with pytest.raises(ValueError, match=message):
        import_log(folder, tmp_path / "log")
    assert left_behind(tmp_path, "parts") == []


def test_files_may_differ_in_what_numbers_they_hold(tmp_path):
    """A column of nothing but missing values has no type; one that is not read may be missing."""
    rows = [without(row, "next_observation") for row in ROWS]
    first = [{**row, "weather": "rain", "observation": [0, 1], "policy_version": 0} for row in rows]
    rest = [{**row, "observation": [0.5, 1.0], "policy_version": False} for row in rows]
    folder = parts(tmp_path / "parts", first[:3], rest[3:])
    with pytest.raises(ValueError, match=r"is not a whole number.*in episode 1, step 0"):
        import_log(folder, tmp_path / "log")
    folder = parts(tmp_path / "more", rest[:3], [without(row, "weather") for row in first[3:]])
    assert import_log(folder, tmp_path / "log").steps == 9
    lost = [{**row, "log_prob": None} for row in ROWS[3:]]
    folder = parts(tmp_path / "lost", ROWS[:3], lost)
    with pytest.raises(ValueError, match="log_prob_behaviour: nan in episode 1, step 0"):
        import_log(folder, tmp_path / "log2")


def test_a_folder_without_a_table(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no .parquet files\.$"):
        open_source(tmp_path / "empty", Layout(), format="parquet")


# Text that is not UTF-8

ADVICE = " is not UTF-8 text. Convert it to UTF-8 from the encoding that it has, such as by iconv"


def encoded(path, rows, encoding):
    """Rows as text of another encoding."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = write(path, rows).read_text()
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("place", ["name", "value", "later"])
def test_text_that_is_not_utf_8(tmp_path, suffix, place, encoding):
    reader = in_pieces(suffix, 4)
    rows = [{**row, "episode": f"e{row['episode']}"} for row in step_rows(episodes([3] * 9))]
    if place == "name":
        rows = [{**row, "é": 1} for row in rows]
    else:
        first = 0 if place == "value" else 5
        names = {f"e{i}": f"é{i}" for i in range(first, 9)}
        rows = [{**r, "episode": names.get(r["episode"], r["episode"])} for r in rows]
    source = encoded(tmp_path / f"s.{suffix}", rows, encoding)
    with pytest.raises(ValueError, match=f"^{re.escape(str(source) + ADVICE)}"):
        import_log(source, tmp_path / "log", reader=reader)
    assert left_behind(tmp_path, f"s.{suffix}") == []
    source = encoded(tmp_path / f"s.{suffix}", rows, "utf-8")
    assert import_log(source, tmp_path / "log", reader=reader).episodes == 9


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_that_is_not_read_may_be_anything(tmp_path, suffix):
    rows = [{**row, "weather": "Föhn"} for row in ROWS]
    source = encoded(tmp_path / f"s.{suffix}", rows, "latin-1")
    assert imported(source, tmp_path)[0].unread == ("weather",)
