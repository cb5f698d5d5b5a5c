import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_samples import CARTPOLE, assert_same_bits, random_trajectories
from deltalake import DeltaTable

from reweigh.data import Trajectories, TrajectoryLog, maintenance


@pytest.fixture
def log(tmp_path):
    """Four appends of four fragments each."""
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    for version in range(4):
        log.append(sample(version))
    return log


def sample(version, length=9):
    rng = np.random.default_rng(version)
    return random_trajectories(
        CARTPOLE, [length] * 4, rng, version=version, first_episode=4 * version
    )


def data_file(log):
    return sorted(log.path.glob("*.parquet"))[1]


def commit_file(log, number):
    return log.path / "_delta_log" / f"{number:020d}.json"


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def one_line(refusal):
    return len(str(refusal.value).splitlines()) == 1


# Data files


@pytest.mark.parametrize(
    "damage",
    [
        halve,
        lambda f: f.write_bytes(b""),
        lambda f: f.write_bytes(b"not parquet" * 99),
        Path.unlink,
    ],
    ids=["half", "empty", "garbage", "missing"],
)
def test_a_data_file_that_cannot_be_read_is_named(log, damage):
    file = data_file(log)
    damage(file)
    readings = [log.read, log.summary, lambda: list(log.stream(max_steps=5))]
    for reading in [*readings, lambda: TrajectoryLog.open(log.path).last_policies(4)]:
        with pytest.raises(ValueError, match=f"{file} is .*Restore it from a backup") as refusal:
            reading()
        assert one_line(refusal)


def test_a_flipped_byte_is_never_read_as_other_rows(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    written = sample(0)
    log.append(written)
    (file,) = log.path.glob("*.parquet")
    intact = file.read_bytes()
    noticed = 0
    for position in range(0, len(intact), 7):
        flipped = bytearray(intact)
        flipped[position] ^= 0xFF
        file.write_bytes(flipped)
        for reading in (log.read, lambda: Trajectories.concatenate([*log.stream(max_steps=20)])):
            try:
                read = reading()
            except ValueError as error:
                assert str(log.path) in str(error)
                assert len(str(error).splitlines()) == 1
                noticed += 1
            else:
                assert_same_bits(read, written)
    assert noticed > 100


def test_a_row_whose_version_was_damaged_is_not_left_out(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    version = 0x0102030405060708
    log.append(Trajectories.concatenate([sample(0), sample(version)]))
    (file,) = log.path.glob("*.parquet")
    intact, number = file.read_bytes(), version.to_bytes(8, "little")
    value = intact.index(number)  # what follows are the statistics
    file.write_bytes(intact[:value] + b"\xff" * 8 + intact[value + 8 :])
    with pytest.raises(ValueError, match="the values of episode"):
        log.read(first_version=1)


def test_compaction_does_not_hide_a_flipped_byte(log):
    file = data_file(log)
    content = file.read_bytes()
    rewards = next(
        sample(version).rewards[5:7].tobytes()
        for version in range(4)
        if sample(version).rewards[5:7].tobytes() in content
    )
    file.write_bytes(content.replace(rewards, rewards[::-1]))
    maintenance.run(log.path)
    assert len(log._snapshot().files) == 1
    with pytest.raises(ValueError, match=r"the values of episode .* are not those"):
        log.read()


def test_compaction_of_a_damaged_file_is_put_off_and_appends_go_on(log, monkeypatch):
    monkeypatch.setattr(maintenance, "EVERY", 1)
    halve(data_file(log))
    rows = DeltaTable(str(log.path)).count()
    log.append(sample(4))
    assert DeltaTable(str(log.path)).count() == rows + 4


# Commits


@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize(
    "damage", [halve, lambda f: f.write_bytes(b"\xff\xfe garbage")], ids=["half", "garbage"]
)
def test_a_commit_that_cannot_be_read_is_named(log, number, damage):
    file = commit_file(log, number)
    damage(file)
    with pytest.raises(ValueError, match=f"{file} is damaged.*Restore it") as refusal:
        TrajectoryLog.open(log.path)
    assert one_line(refusal)


def test_a_missing_commit_is_named(log):
    commit_file(log, 2).unlink()
    with pytest.raises(ValueError, match=str(commit_file(log, 2))):
        TrajectoryLog.open(log.path)


def test_an_empty_commit_is_not_read_as_no_rows(log):
    commit_file(log, 4).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{commit_file(log, 4)} is empty"):
        TrajectoryLog.open(log.path)
    commit_file(log, 4).unlink()  # what the message says
    assert len(TrajectoryLog.open(log.path).read()) == 12


def test_a_damaged_checkpoint_is_named(log):
    maintenance.run(log.path)
    (checkpoint,) = (log.path / "_delta_log").glob("*.checkpoint.parquet")
    halve(checkpoint)
    with pytest.raises(ValueError, match=f"{checkpoint} is damaged"):
        TrajectoryLog.open(log.path)


# Folders that are no log


def test_a_folder_that_is_no_log_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(ValueError, match=f"{path} is not a trajectory log"):
            TrajectoryLog.open(path)
    assert not (tmp_path / "nothing").exists()


def test_a_delta_table_of_something_else_is_refused(tmp_path, log):
    table = DeltaTable(str(log.path))
    DeltaTable.create(str(tmp_path / "other"), table.schema())
    with pytest.raises(ValueError, match="other is a Delta table that reweigh did not make"):
        TrajectoryLog.open(tmp_path / "other")


def test_a_log_of_another_format_is_refused(log):
    commit = commit_file(log, 0)
    commit.write_text(commit.read_text().replace('"reweigh.format":"2"', '"reweigh.format":"1"'))
    with pytest.raises(ValueError, match=r"format 1.*reads format 2"):
        TrajectoryLog.open(log.path)


# A disk that takes no more


def test_a_write_the_system_refuses_is_an_oserror_and_changes_nothing(log):
    """No file may grow beyond 2 kB: to the writer it is a disk that fills up during the write."""
    before = log.read()
    version = DeltaTable(str(log.path)).version()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refusal:
            log.append(sample(4, length=500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert refusal.value.errno == errno.EFBIG
    assert refusal.value.filename == str(log.path)
    assert one_line(refusal)
    assert DeltaTable(str(log.path)).version() == version
    assert_same_bits(log.read(), before)
    log.append(sample(4))
    assert len(log.read()) == len(before) + 4


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_keeps_whole_appends_and_no_half(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        log = TrajectoryLog.create(disk / "log", CARTPOLE)
        whole = 0
        with pytest.raises(OSError, match="No space left on device") as refusal:
            for version in range(100):
                log.append(sample(version, length=500))
                whole += 1
        assert refusal.value.errno == errno.ENOSPC
        expected = Trajectories.concatenate([sample(v, length=500) for v in range(whole)])
        assert_same_bits(log.read(), expected)
        maintenance.run(log.path)  # has no room to work in, and leaves all as it is
        assert_same_bits(TrajectoryLog.open(log.path).read(), expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# What the person at the terminal sees

AT_EXIT = """
import sys
from reweigh.data import TrajectoryLog
try:
    TrajectoryLog.open(sys.argv[1]).read()
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["data", "commit"])
def test_damage_leaves_nothing_on_the_terminal_but_the_error(log, name):
    halve(data_file(log) if name == "data" else commit_file(log, 2))
    command = [sys.executable, "-c", AT_EXIT, str(log.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "is damaged" in done.stdout
