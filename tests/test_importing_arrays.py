import h5py
import numpy as np
import pytest
from data_samples import assert_same_bits
from importing_samples import episodes, expected, imported, in_pieces, left_behind

from reweigh.data import ArraySpec
from reweigh.data.importing import Layout, import_log
from reweigh.data.importing.write import drop


def d4rl(made, *, after=True):
    """Episodes end to end, as D4RL's files have them."""
    log = expected(made)
    last = log.stop - 1
    ends = np.zeros((2, log.steps), dtype=bool)
    ends[0, last], ends[1, last] = log.terminated, log.truncated
    following = np.append(log.observations[1:], log.observations[:1], axis=0)
    following[last] = log.final_observations
    return {
        "observations": log.observations,
        "actions": log.actions,
        "rewards": log.rewards,
        "terminals": ends[0],
        "timeouts": ends[1],
        "infos/action_log_probs": log.log_prob_behaviour,
        **({"next_observations": following} if after else {}),
    }


def save(path, columns, *, compressed=False):
    if path.suffix == ".npz":
        (np.savez_compressed if compressed else np.savez)(path, **columns)
    else:
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[name] = values
            file["metadata/algorithm"] = "SAC"
            file["metadata/policy/weight"] = np.zeros((3, 3))
    return path


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("name", ["source.hdf5", "source.npz"])
def test_d4rl_arrays_come_back_bit_for_bit(tmp_path, name, discrete, rows):
    made = episodes([3, 1, 5, 2], discrete=discrete)
    source = save(tmp_path / name, d4rl(made))
    report, log = imported(source, tmp_path, reader=in_pieces(source.suffix[1:], rows))
    assert_same_bits(log, expected(made))
    assert report.columns["log_prob_behaviour"] == ("infos/action_log_probs",)
    assert report.columns["truncated"] == ("timeouts",)
    assert report.schema.action.choices == ((3,) if discrete else ())
    assert report.notes == () and report.unread == ()


def test_a_compressed_npz_and_one_in_the_order_of_fortran(tmp_path):
    made = episodes([3, 2])
    columns = d4rl(made)
    columns["observations"] = np.asfortranarray(columns["observations"])
    source = save(tmp_path / "source.npz", columns, compressed=True)
    assert_same_bits(imported(source, tmp_path)[1], expected(made))


def test_precision_stays_what_it_is(tmp_path):
    columns = d4rl(episodes([3, 2], discrete=False))
    columns |= {name: columns[name].astype(np.float32) for name in ("observations", "actions")}
    columns["next_observations"] = columns["next_observations"].astype(np.float32)
    columns["rewards"] = columns["rewards"].astype(np.float32)[:, None]
    report, log = imported(save(tmp_path / "s.hdf5", columns), tmp_path)
    assert report.schema.observation == ArraySpec("float32", (2,))
    assert log.actions.dtype == np.float32
    assert log.rewards.tolist() == columns["rewards"][:, 0].astype(np.float64).tolist()


def test_images_come_back_byte_for_byte(tmp_path):
    columns = d4rl(episodes([3, 2]))
    pixels = np.random.default_rng(0).integers(0, 255, (5, 32, 32), dtype=np.uint8)
    columns |= {"observations": pixels, "next_observations": pixels}
    report, log = imported(save(tmp_path / "s.hdf5", columns), tmp_path)
    assert report.schema.observation == ArraySpec("uint8", (32, 32))
    assert log.observations.tobytes() == pixels.tobytes()


def test_log_probs_that_are_not_there_are_missing(tmp_path):
    columns = d4rl(episodes([3, 2]), after=False)
    del columns["infos/action_log_probs"]
    report, log = imported(save(tmp_path / "s.hdf5", columns), tmp_path)
    assert report.schema.behaviour == "missing" and np.isnan(log.log_prob_behaviour).all()
    assert "No importance weight exists without them" in report.notes[1]
    assert "--estimate-behaviour" in str(report)
    assert log.final_observations.tolist() == log.observations[[2, 4]].tolist()


def test_steps_after_the_last_end_are_an_episode_without_one(tmp_path):
    made = episodes([3, 2])
    columns = d4rl(made)
    columns["timeouts"][:] = False
    source = save(tmp_path / "s.hdf5", columns)
    with pytest.raises(ValueError, match="Episode 1 has no end: step 1 is its last"):
        import_log(source, tmp_path / "log")
    report, log = imported(source, tmp_path, unfinished=drop)
    assert_same_bits(log, expected(made[:1]))
    assert report.notes == ("1 episodes without an end were left out.",)


def test_a_folder_of_npz_files_has_an_episode_in_each(tmp_path):
    made = episodes([3, 1, 2])
    (tmp_path / "recordings").mkdir()
    for i, e in enumerate(made):
        np.savez(
            tmp_path / "recordings" / f"episode-{i}.npz",
            observations=np.array([*e.observations, e.after]),
            actions=np.array(e.actions),
            rewards=np.array(e.rewards),
            log_prob_behaviour=np.array(e.log_prob_behaviour),
            terminated=np.array(e.terminated),
            truncated=np.array([e.truncated]),
        )
    report, log = imported(tmp_path / "recordings", tmp_path)
    assert_same_bits(log, expected(made))
    assert report.notes == () and report.schema.environment == "recordings"
    np.savez(tmp_path / "recordings" / "episode-9.npz", observations=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"episode-9.npz has no array 'actions'"):
        import_log(tmp_path / "recordings", tmp_path / "more")


@pytest.mark.parametrize("name", ["s.hdf5", "s.npz"])
def test_floats_that_look_like_choices_and_a_clock(tmp_path, name):
    columns = d4rl(episodes([3, 4, 2]))
    columns |= {"actions": columns["actions"].astype(np.float32), "time": 0.5 + np.arange(9)}
    report, _ = imported(save(tmp_path / name, columns), tmp_path)
    assert report.notes[0].endswith("import them by --choices 3.")
    assert report.schema.action == ArraySpec("float32", ())
    columns["time"][5] = 4.5
    with pytest.raises(ValueError, match=r"time: it is 4.5 after 4.5.* in episode 1, step 2"):
        import_log(save(tmp_path / f"t{name}", columns), tmp_path / "more")


# Refusals


@pytest.mark.parametrize("name", ["s.hdf5", "s.npz"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "infos/action_log_probs",
            -np.inf,
            "-inf in episode 1, step 2; an action of",
        ),
        ("infos/action_log_probs", 0.5, "log_prob_behaviour: 0.5 in episode 1, step 2"),
        ("rewards", np.nan, "rewards: nan in episode 1, step 2"),
        ("observations", np.nan, "observations: .*nan.* in episode 1, step 2"),
        ("actions", -1, "actions: -1 in episode 1, step 2"),
    ],
)
def test_a_step_that_cannot_be(tmp_path, name, column, value, message):
    columns = d4rl(episodes([3, 4, 2]))
    columns[column][5] = value
    source = save(tmp_path / name, columns)
    with pytest.raises(ValueError, match=message):
        import_log(source, tmp_path / "log")
    assert left_behind(tmp_path, name) == []


@pytest.mark.parametrize("name", ["s.hdf5", "s.npz"])
def test_arrays_of_different_lengths(tmp_path, name):
    columns = d4rl(episodes([3, 2]))
    columns["actions"] = columns["actions"][:-1]
    with pytest.raises(ValueError, match=r"actions has 4 entries, and there are 5.*at row 4"):
        import_log(save(tmp_path / name, columns), tmp_path / "log")
    with pytest.raises(
        ValueError, match=r"No column for actions.*has the columns .*observations\."
    ):
        import_log(save(tmp_path / f"t{name}", {"observations": np.zeros(3)}), tmp_path / "log")
    empty = {key: values[:0] for key, values in d4rl(episodes([3, 2])).items()}
    with pytest.raises(ValueError, match="no rows"):
        import_log(save(tmp_path / f"u{name}", empty), tmp_path / "log")


def test_files_that_are_something_else(tmp_path):
    for name in ("s.hdf5", "s.npz"):
        (tmp_path / name).write_text("observations")
        with pytest.raises(ValueError, match=rf"{name} cannot be read as"):
            import_log(tmp_path / name, tmp_path / "log")
    np.savez(tmp_path / "objects.npz", rewards=np.array([None, {}], dtype=object))
    with pytest.raises(ValueError, match="No column for observations"):
        import_log(tmp_path / "objects.npz", tmp_path / "log")
    (tmp_path / "folder").mkdir()
    (tmp_path / "objects.npz").rename(tmp_path / "folder" / "objects.npz")
    with pytest.raises(ValueError, match=r"objects.npz cannot be read as .npz: Object arrays"):
        import_log(tmp_path / "folder", tmp_path / "log", layout=Layout())
