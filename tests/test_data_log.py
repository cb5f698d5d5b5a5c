import fcntl
import json
import multiprocessing
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import CARTPOLE, assert_same_bits, random_trajectories
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reweigh.data.log as log_module
from reweigh.data import ArraySpec, Trajectories, TrajectoryLog, TrajectorySchema, maintenance
from reweigh.data.rows import from_table, to_table

DTYPES = (
    ["bool", "float16", "float32", "float64"]
    + [f"int{bits}" for bits in (8, 16, 32, 64)]
    + [f"uint{bits}" for bits in (8, 16, 32, 64)]
)


def fill(log, appends, *, episodes=2, length=5, first=0):
    """Append that many times, a version of the policy each time, and give back what was written."""
    parts = []
    for version in range(first, first + appends):
        rng = np.random.default_rng(version)
        lengths = [length] * episodes
        parts.append(
            random_trajectories(
                log.schema, lengths, rng, version=version, first_episode=version * episodes
            )
        )
        log.append(parts[-1])
    return Trajectories.concatenate(parts)


def state(log):
    """What a refused append must leave as it was: the rows, the commit, the files."""
    files = sorted(p.name for p in log.path.rglob("*") if p.is_file())
    return log.summary(), DeltaTable(str(log.path)).version(), files


# Exactness


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    spec = ArraySpec(dtype, shape)
    schema = TrajectorySchema("X", spec, spec, False)
    written = fill(TrajectoryLog.create(tmp_path / "log", schema), 2, length=4)
    again = TrajectoryLog.open(tmp_path / "log")
    assert again.schema == schema
    assert_same_bits(again.read(), written)
    assert_same_bits(Trajectories.concatenate(list(again.stream(max_steps=4))), written)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_slice_of_a_table_is_its_rows(dtype):
    schema = replace(CARTPOLE, observation=ArraySpec(dtype, (2,)))
    rows = random_trajectories(schema, [3, 1, 2], np.random.default_rng(0))
    table = to_table(rows, schema)
    assert_same_bits(from_table(table.slice(1, 1), schema), rows.select(np.array([1])))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(1, 40), max_size=6), min_size=1, max_size=4))
def test_ragged_fragments_come_back_bit_for_bit(tmp_path_factory, appends):
    log = TrajectoryLog.create(tmp_path_factory.mktemp("run") / "log", CARTPOLE)
    parts = [Trajectories.empty(CARTPOLE)]
    for version, lengths in enumerate(appends):
        rng = np.random.default_rng(version)
        parts.append(random_trajectories(CARTPOLE, lengths, rng, version=version))
        log.append(parts[-1])
    written = Trajectories.concatenate(parts)
    assert_same_bits(log.read(), written)
    assert log.summary().fragments == len(written)
    assert log.summary().steps == written.steps


def test_what_is_read_can_be_written_to(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    fill(log, 1)
    log.read().rewards[:] = 0.0


def test_a_new_log_is_empty(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    assert_same_bits(log.read(), Trajectories.empty(CARTPOLE))
    assert_same_bits(log.last_policies(3), Trajectories.empty(CARTPOLE))
    assert list(log.stream(max_steps=10)) == []
    assert log.summary().steps_by_policy == {}


def test_any_delta_reader_finds_names_units_and_values(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 1, length=3)
    table = DeltaTable(str(log.path))
    schema = pa.schema(table.schema().to_arrow())
    assert schema.field("log_prob_behaviour").metadata == {b"unit": b"nat"}
    assert all(b"unit" in (field.metadata or {}) for field in schema)
    rows = table.to_pyarrow_table().to_pylist()
    assert rows[1]["rewards"] == written.rewards[3:].tolist()
    assert len(rows[0]["observations"]) == 3 * 4
    assert json.loads(table.metadata().configuration["reweigh.schema"])["environment"]


@pytest.mark.parametrize("name", ["with space", "ü", "50% #?&"])
def test_any_folder_name_will_do(tmp_path, name):
    log = TrajectoryLog.create(tmp_path / name, CARTPOLE)
    written = fill(log, 3)
    maintenance.run(log.path)
    assert len(log._snapshot().files) == 1
    assert_same_bits(TrajectoryLog.open(tmp_path / name).read(), written)


def test_a_relative_path_is_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = TrajectoryLog.create("log", CARTPOLE)
    written = fill(log, 1)
    monkeypatch.chdir("/")
    assert log.path == tmp_path / "log"
    assert_same_bits(log.read(), written)


# Order and choice


def test_rows_are_in_order_whatever_the_order_of_writing(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    rng = np.random.default_rng(0)
    n = 24
    version, episode, time = np.unravel_index(np.arange(n), (3, 4, 2))
    sorted_rows = replace(
        random_trajectories(CARTPOLE, rng.integers(1, 6, n).tolist(), rng),
        policy_version=version.astype(np.int64),
        episode=episode.astype(np.int64),
        time_start=time.astype(np.int64),
    )
    for part in np.array_split(rng.permutation(n), 5):
        log.append(sorted_rows.select(part))
    assert_same_bits(log.read(), sorted_rows)
    for max_steps in (1, 7, 30, 10**6):
        batches = list(log.stream(max_steps=max_steps))
        assert_same_bits(Trajectories.concatenate(batches), sorted_rows)
        assert all(b.steps <= max_steps or len(b) == 1 for b in batches)
        fewest = sorted_rows.steps / max_steps
        assert len(batches) <= min(n, 2 * fewest + 1)


def test_reading_from_a_version_and_the_last_policies(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 4)
    later = fill(log, 2, first=9)  # versions 0 to 3, 9 and 10
    assert_same_bits(log.read(first_version=4), later)
    assert_same_bits(log.read(first_version=11), Trajectories.empty(CARTPOLE))
    both = Trajectories.concatenate([written, later])
    assert_same_bits(log.last_policies(3), both.select(both.policy_version >= 3))
    assert_same_bits(log.last_policies(100), both)


def test_reading_a_version_leaves_the_files_of_others_alone(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 3)
    for file in log.path.glob("*.parquet"):
        versions = pq.read_table(file, columns=["policy_version"])["policy_version"]
        if versions[0].as_py() < 2:
            file.write_bytes(b"")
    newest = written.select(written.policy_version == 2)
    assert_same_bits(log.read(first_version=2), newest)


def test_the_summary_counts(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    fill(log, 3, episodes=2, length=5)
    one_episode = random_trajectories(CARTPOLE, [7], np.random.default_rng(9), version=2)
    log.append(replace(one_episode, time_start=np.array([5])))  # goes on with episode 0
    summary = log.summary()
    assert (summary.fragments, summary.episodes, summary.steps) == (7, 6, 37)
    assert summary.steps_by_policy == {0: 10, 1: 10, 2: 17}


@pytest.mark.parametrize("count", [0, -1])
def test_numbers_that_choose_nothing_are_refused(tmp_path, count):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    with pytest.raises(ValueError, match=f"count is {count}"):
        log.last_policies(count)
    with pytest.raises(ValueError, match=f"max_steps is {count}"):
        next(log.stream(max_steps=count))


def test_a_stream_is_of_the_moment_it_began(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 3)
    stream = log.stream(max_steps=10)
    batches = [next(stream)]
    fill(log, 2, first=3)
    maintenance.run(log.path)
    assert_same_bits(Trajectories.concatenate([*batches, *stream]), written)


def test_a_log_as_it_was_has_nothing_of_what_came_later(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 2)
    before = log.at_present()
    later = fill(log, 1, first=2)
    assert_same_bits(before.read(), written)
    assert before.summary().steps == written.steps
    assert_same_bits(log.read(), Trajectories.concatenate([written, later]))


def test_episodes_come_whole_and_in_order_whichever_policies_took_their_steps(tmp_path):
    """Episode 3 is begun by policy 0 and ended by policy 1, as episode 1 is; 2 has one policy."""
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    fragments = replace(
        random_trajectories(CARTPOLE, [3, 2, 4, 1, 5], np.random.default_rng(0)),
        episode=np.array([1, 1, 2, 3, 3]),
        time_start=np.array([0, 3, 0, 0, 1]),
        policy_version=np.array([0, 1, 1, 0, 1]),
    )
    log.append(fragments.select(np.array([4, 0, 2])))
    log.append(fragments.select(np.array([1, 3])))
    for max_steps, counts in ((1, [2, 1, 2]), (9, [3, 2]), (100, [5])):
        pieces = list(log.stream_episodes(max_steps=max_steps))
        assert [len(piece) for piece in pieces] == counts
        assert_same_bits(Trajectories.concatenate(pieces), fragments)


def peak_bytes(monkeypatch, read, **arguments):
    """The most that numpy held at once, and Arrow whenever it handed over a file's rows."""
    arrow = []

    def watched(table, schema):
        arrow.append(pa.total_allocated_bytes())
        return from_table(table, schema)

    monkeypatch.setattr(log_module, "from_table", watched)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    for _ in read(**arguments):
        pass
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return numpy_peak + max(arrow) - before


@pytest.mark.parametrize("compacted", [False, True])
def test_the_memory_of_a_stream_does_not_grow_with_the_log(tmp_path, monkeypatch, compacted):
    peaks = {}
    for appends in (4, 32):
        log = TrajectoryLog.create(tmp_path / str(appends), CARTPOLE)
        fill(log, appends, episodes=4, length=2000)
        if compacted:
            maintenance.run(log.path, file_bytes=1 << 20, group_rows=8)
        peaks[appends] = peak_bytes(monkeypatch, log.stream, max_steps=4000)
        assert sum(batch.steps for batch in log.stream(max_steps=4000)) == appends * 8000
    # Arrow's threads may free late, so that the peaks are not quite the same.
    assert peaks[32] < 2 * peaks[4]
    assert peaks[32] < peak_bytes(monkeypatch, log.stream, max_steps=10**9) / 4


# Refusals


def test_every_refusal_writes_nothing(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    fill(log, 2)
    before = state(log)
    good = random_trajectories(CARTPOLE, [3, 2], np.random.default_rng(0))
    bad = {
        "rewards": np.full(5, np.nan),
        "log_prob_behaviour": np.full(5, 0.5),
        "observations": np.full((5, 4), np.inf, np.float32),
        "actions": np.zeros((5, 1), np.int64),
        "lengths": np.array([5, 0]),
        "time_start": np.array([0, -3]),
        "seed": np.zeros(1, np.int64),
    }
    for name, column in bad.items():
        with pytest.raises(ValueError, match=f"^{name}: "):
            log.append(replace(good, **{name: column}))
    log.append(good.select(np.array([], dtype=np.int64)))  # no fragments, no commit
    assert state(log) == before


def test_another_schema_is_refused_with_both(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    log.require(CARTPOLE)
    other = replace(CARTPOLE, environment="Acrobot-v1", observation=ArraySpec("float32", (6,)))
    with pytest.raises(ValueError, match=r"CartPole-v1.*Acrobot-v1"):
        log.require(other)
    with pytest.raises(ValueError, match=r"float32\[6\].*CartPole-v1 needs float32\[4\]"):
        log.append(random_trajectories(other, [3], np.random.default_rng(0)))


def test_a_second_log_in_a_folder_is_refused(tmp_path):
    TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    with pytest.raises(ValueError, match="is a log already"):
        TrajectoryLog.create(tmp_path / "log", CARTPOLE)


def test_a_path_that_would_be_decoded_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a%20b holds a URL escape"):
        TrajectoryLog.create(tmp_path / "a%20b", CARTPOLE)
    assert not (tmp_path / "a%20b").exists()


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file"):
        TrajectoryLog.create(tmp_path / "file" / "log", CARTPOLE)


# Many writers


def write_many(path, writer, appends):
    log = TrajectoryLog.open(path)
    for i in range(appends):
        number = writer * appends + i
        log.append(
            random_trajectories(
                CARTPOLE, [3, 1], np.random.default_rng(number), version=i, first_episode=2 * number
            )
        )


def test_writers_at_once_lose_and_double_nothing(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    context = multiprocessing.get_context("spawn")
    writers, appends = 4, 40
    processes = [
        context.Process(target=write_many, args=(log.path, writer, appends))
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        maintenance.run(log.path, file_bytes=1 << 14)  # against their own as well
        processes[0].join(0.05)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = log.read()
    assert sorted(rows.episode.tolist()) == list(range(2 * writers * appends))
    for episode in range(0, 2 * writers * appends, 34):
        row = rows.select(rows.episode == episode)
        written = random_trajectories(CARTPOLE, [3, 1], np.random.default_rng(episode // 2))
        np.testing.assert_array_equal(row.rewards, written.rewards[:3])


KILLED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from data_samples import CARTPOLE, random_trajectories
from reweigh.data import TrajectoryLog
log = TrajectoryLog.open(sys.argv[1])
for i in range(10**6):
    rng = np.random.default_rng(i)
    log.append(random_trajectories(CARTPOLE, [3, 1, 2], rng, version=i, first_episode=3 * i))
    print(i, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_commits(tmp_path):
    for appends in (5, 70):  # the second dies after a compaction
        log = TrajectoryLog.create(tmp_path / f"log{appends}", CARTPOLE)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(log.path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) == appends:
                    break
            writer.kill()
        rows = TrajectoryLog.open(log.path).read()
        commits = len(rows) // 3
        assert commits > appends  # whatever was reported is there
        np.testing.assert_array_equal(rows.lengths, np.tile([3, 1, 2], commits))
        np.testing.assert_array_equal(rows.episode, np.arange(3 * commits))
        fill(TrajectoryLog.open(log.path), 1, first=10**6)  # and it can be gone on with


# Housekeeping


def test_three_hundred_appends_leave_few_files(tmp_path, monkeypatch):
    for name in maintenance.RETENTION:
        monkeypatch.setitem(maintenance.RETENTION, name, "interval 0 seconds")
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    sleeper, reader = TrajectoryLog.open(log.path), TrajectoryLog.open(log.path)
    written = fill(log, 300)
    assert len(list(log.path.glob("*.parquet"))) <= 2 * maintenance.EVERY
    assert len(list((log.path / "_delta_log").iterdir())) <= 2 * maintenance.EVERY
    assert_same_bits(log.read(), written)
    assert_same_bits(reader.read(), written)  # opened before all of it
    assert_same_bits(TrajectoryLog.open(log.path).read(), written)
    both = Trajectories.concatenate([written, fill(sleeper, 1, first=300)])
    assert_same_bits(log.read(), both)


def test_compaction_keeps_rows_exactly_and_files_for_readers(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = fill(log, 10)
    before = log._snapshot()
    maintenance.run(log.path)
    assert len(log._snapshot().files) == 1
    assert_same_bits(log.read(), written)
    assert before.count_rows() == len(written)
    assert len(before.to_table()) == len(written)  # the merged files are still there to read


def test_compaction_gives_way_to_one_that_runs(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    fill(log, 3)
    with (log.path / "_maintenance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        maintenance.run(log.path)
    assert len(log._snapshot().files) == 3
    maintenance.run(log.path)
    assert len(log._snapshot().files) == 1
