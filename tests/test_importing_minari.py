"""Datasets that the minari package itself writes."""

import json
import warnings
from dataclasses import replace
from functools import partial

import gymnasium as gym
import minari
import numpy as np
import pyarrow.dataset as ds
import pytest
from data_samples import assert_same_bits
from gymnasium import spaces
from importing_samples import episodes, expected, imported, left_behind, step_rows, write
from minari.data_collector import EpisodeBuffer

from reweigh.data import ArraySpec, TrajectoryLog
from reweigh.data.importing import Layout, import_log
from reweigh.data.importing.write import open_source

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float64)
FORMATS = ["hdf5", "parquet", "arrow"]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Where Minari keeps its datasets."""
    folder = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


def buffers(made, *, infos=True, observations=None, actions=None):
    """Episodes as Minari collects them: one info more than steps, that of the reset."""
    return [
        EpisodeBuffer(
            id=i,
            seed=100 + i if i != 1 else None,
            observations=(observations or (lambda x: x))(np.array([*e.observations, e.after])),
            actions=(actions or (lambda x: x))(np.array(e.actions)),
            rewards=e.rewards,
            terminations=[False] * (len(e.rewards) - 1) + [e.terminated],
            truncations=[False] * (len(e.rewards) - 1) + [e.truncated],
            infos={
                "policy": {"log_prob": np.array([0.0, *e.log_prob_behaviour])},
                "frame": np.arange(len(e.rewards) + 1),
                "word": ["text"] * (len(e.rewards) + 1),
            }
            if infos
            else None,
        )
        for i, e in enumerate(made)
    ]


def create(buffer, kind="hdf5", *, observation=BOX, action, name="mine/test-v0", env=None):
    """A dataset, written by Minari; it warns of all that a dataset for the public would need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(
            name,
            buffer,
            env=env,
            observation_space=observation,
            action_space=action,
            data_format=kind,
        )


def seeded(made):
    """What a log of the episodes holds, with the seeds that Minari keeps."""
    seeds = [100 + i if i != 1 else -1 for i in range(len(made))]
    return replace(expected(made), seed=np.array(seeds))


LAYOUT = Layout(log_prob_behaviour="policy/log_prob")


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_dataset_comes_back_bit_for_bit(datasets, tmp_path, kind, discrete):
    made = episodes([3, 1, 4], discrete=discrete)
    action = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,), np.float64)
    create(buffers(made), kind, action=action)
    report, log = imported(datasets / "mine/test-v0", tmp_path, layout=LAYOUT)
    assert_same_bits(log, seeded(made))
    assert report.format == f"Minari, {kind}"
    assert report.schema.environment == "mine/test-v0"
    assert report.schema.action == ArraySpec(
        *(("int64", (), (3,)) if discrete else ("float64", (2,)))
    )
    assert report.schema.discrete_actions == discrete
    assert report.columns["log_prob_behaviour"] == ("infos/policy/log_prob",)
    assert report.unread == ("infos/frame",) and report.notes == ()


def test_a_dataset_is_found_by_its_name(datasets, tmp_path):
    made = episodes([3, 2])
    create(buffers(made), action=spaces.Discrete(3), env="CartPole-v1")
    report, log = imported("mine/test-v0", tmp_path)
    assert report.schema.environment == "CartPole-v1"
    assert report.schema.behaviour == "missing" and np.isnan(log.log_prob_behaviour).all()
    assert "No importance weight exists" in report.notes[0]
    with pytest.raises(ValueError, match=r"no Minari dataset of that name in .*minari download"):
        import_log("mine/other-v0", tmp_path / "log2")


def test_usual_names_of_log_probs_are_found(datasets, tmp_path):
    made = episodes([3, 2])
    buffer = [
        replace(b, infos={"action_logp": b.infos["policy"]["log_prob"]}) for b in buffers(made)
    ]
    create(buffer, action=spaces.Discrete(3))
    report, log = imported("mine/test-v0", tmp_path)
    assert report.columns["log_prob_behaviour"] == ("infos/action_logp",)
    assert_same_bits(log, seeded(made))


def test_infos_may_be_one_a_step(datasets, tmp_path):
    made = episodes([3, 2])
    buffer = [
        replace(b, infos={"log_prob": b.infos["policy"]["log_prob"][1:]}) for b in buffers(made)
    ]
    create(buffer, action=spaces.Discrete(3))
    assert_same_bits(imported("mine/test-v0", tmp_path)[1], seeded(made))


@pytest.mark.parametrize("kind", FORMATS)
def test_choices_count_from_zero_here(datasets, tmp_path, kind):
    made = episodes([3, 2], shape=())
    for e in made:
        e.observations = [4 + t % 2 for t in range(len(e.rewards))]
        e.after = 6
    buffer = buffers(made, actions=lambda a: np.stack([a, 10 + a % 2], axis=1))
    create(
        buffer,
        kind,
        observation=spaces.Discrete(5, start=4),
        action=spaces.MultiDiscrete([3, 2], start=[0, 10]),
    )
    report, log = imported("mine/test-v0", tmp_path, layout=LAYOUT)
    assert report.schema.observation == ArraySpec("int64", (), (5,))
    assert report.schema.action == ArraySpec("int64", (2,), (3, 2))
    actions = np.concatenate([e.actions for e in made])
    assert log.actions.tolist() == np.stack([actions, actions % 2], axis=1).tolist()
    assert log.observations.tolist() == [0, 1, 0, 0, 1]
    assert log.final_observations.tolist() == [2, 2]


@pytest.mark.parametrize("kind", FORMATS)
def test_bits_are_pairs_of_choices(datasets, tmp_path, kind):
    made = episodes([2])
    bits = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.int8)
    create(buffers(made, actions=lambda _: bits), kind, action=spaces.MultiBinary(3))
    report, log = imported("mine/test-v0", tmp_path, layout=LAYOUT)
    assert report.schema.action == ArraySpec("int64", (3,), (2, 2, 2))
    assert log.actions.tolist() == bits.tolist()


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_of_a_dict_are_chosen_and_laid_end_to_end(datasets, tmp_path, kind):
    made = episodes([3, 2])
    space = spaces.Dict({"goal": BOX, "position": spaces.Box(-9, 9, (1, 2), np.float32)})

    def observations(x):
        return {"goal": x, "position": (2 * x)[:, None].astype(np.float32)}

    create(
        buffers(made, observations=observations), kind, observation=space, action=spaces.Discrete(3)
    )
    with pytest.raises(ValueError, match=r"have parts: goal, position\..*--observations.*Flatten"):
        import_log("mine/test-v0", tmp_path / "log")
    layout = replace(LAYOUT, observations=("position", "goal"))
    report, log = imported("mine/test-v0", tmp_path, layout=layout)
    assert report.schema.observation == ArraySpec("float64", (4,))
    whole = expected(made)
    assert log.observations[:, 2:].tobytes() == whole.observations.tobytes()
    doubled = (2 * whole.final_observations).astype(np.float32)
    assert log.final_observations[:, :2].tolist() == doubled.tolist()
    for chosen, message in ((("goal", "speed"), "no part 'speed': goal, position"),):
        with pytest.raises(ValueError, match=message):
            import_log("mine/test-v0", tmp_path / "log2", layout=Layout(observations=chosen))


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_of_a_tuple_have_numbers(datasets, tmp_path, kind):
    made = episodes([3, 2])
    create(
        buffers(made, observations=lambda x: (x, x + 1)),
        kind,
        observation=spaces.Tuple([BOX, BOX]),
        action=spaces.Discrete(3),
    )
    layout = replace(LAYOUT, observations=("_index_1",))
    _, log = imported("mine/test-v0", tmp_path, layout=layout)
    assert log.observations.tobytes() == (expected(made).observations + 1).tobytes()


@pytest.mark.parametrize("shape", [(32, 40, 3), (32, 40)])
@pytest.mark.parametrize("kind", FORMATS)
def test_compressed_images_are_read_and_doubted(datasets, tmp_path, kind, shape):
    made = episodes([3, 2])
    space = spaces.Box(0, 255, shape, np.uint8)
    even = [
        np.full((len(e.rewards) + 1, *shape), 50 * i + 50, np.uint8) for i, e in enumerate(made)
    ]
    buffer = [replace(b, observations=x) for b, x in zip(buffers(made), even, strict=True)]
    create(buffer, kind, observation=space, action=spaces.Discrete(3))
    report, log = imported("mine/test-v0", tmp_path, layout=LAYOUT)
    assert "images as JPEG" in report.notes[0]
    assert report.schema.observation == ArraySpec("uint8", shape)
    assert np.abs(log.observations.astype(int) - np.concatenate([x[1:] for x in even])).max() <= 2


def test_what_cannot_be_kept_is_refused(datasets, tmp_path):
    made = episodes([2])
    text = EpisodeBuffer(
        id=0,
        observations=["a", "b", "a"],
        actions=np.array([0, 1]),
        rewards=[0.0, 0.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    create([text], observation=spaces.Text(3), action=spaces.Discrete(3))
    with pytest.raises(ValueError, match="The observations are Text; a log keeps Box"):
        import_log("mine/test-v0", tmp_path / "log")
    two = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Discrete(3)})
    create(
        buffers(made, infos=False, actions=lambda a: {"a": a, "b": a}),
        action=two,
        name="mine/dict-v0",
    )
    with pytest.raises(ValueError, match="The actions are Dict; a log keeps Box"):
        import_log("mine/dict-v0", tmp_path / "log")
    with pytest.raises(ValueError, match="have no parts"):
        create(buffers(made), action=spaces.Discrete(3), name="mine/box-v0")
        import_log("mine/box-v0", tmp_path / "log", layout=Layout(observations=("x",)))
    assert left_behind(tmp_path, "datasets") == []


def test_choices_may_be_given(datasets, tmp_path):
    made = episodes([3, 2])
    action = spaces.Box(0, 8, (), np.int64)
    create(buffers(made), action=action)
    layout = replace(LAYOUT, choices=(9,))
    report, _ = imported("mine/test-v0", tmp_path, layout=layout)
    assert report.schema.action == ArraySpec("int64", (), (9,)) and report.schema.discrete_actions


@pytest.mark.parametrize("kind", FORMATS)
def test_a_step_that_cannot_be(datasets, tmp_path, kind):
    for i, (column, value, message) in enumerate(
        [
            ("log_prob_behaviour", -np.inf, "-inf in episode 1, step 2; an action of"),
            ("log_prob_behaviour", 0.5, "log_prob_behaviour: 0.5 in episode 1, step 2"),
            ("rewards", np.nan, "rewards: nan in episode 1, step 2"),
            ("actions", 3, "actions: 3 in episode 1, step 2"),
        ]
    ):
        made = episodes([3, 4])
        getattr(made[1], column)[2] = value
        create(buffers(made), kind, action=spaces.Discrete(3), name=f"mine/bad-v{i}")
        with pytest.raises(ValueError, match=message):
            import_log(f"mine/bad-v{i}", tmp_path / "log", layout=LAYOUT)
    made = episodes([3, 4])
    made[1].truncated = False
    create(buffers(made), kind, action=spaces.Discrete(3), name="mine/endless-v0")
    with pytest.raises(ValueError, match="Episode 1 has no end: step 3"):
        import_log("mine/endless-v0", tmp_path / "log", layout=LAYOUT)
    assert left_behind(tmp_path, "datasets") == []


def test_columns_of_different_lengths(datasets, tmp_path):
    buffer = buffers(episodes([3, 4]))
    create(
        [buffer[0], replace(buffer[1], actions=buffer[1].actions[:3])], action=spaces.Discrete(3)
    )
    with pytest.raises(ValueError, match=r"actions: 3 entries in episode 1, .* at step 3"):
        import_log("mine/test-v0", tmp_path / "log")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_dataset_that_is_not_whole(datasets, tmp_path, kind):
    create(buffers(episodes([3, 4])), kind, action=spaces.Discrete(3))
    data = datasets / "mine/test-v0/data"
    metadata = json.loads((data / "metadata.json").read_text())
    for change, message in (
        ({"total_episodes": 3}, "cannot be read as a Minari dataset|an episode is missing"),
        ({"total_episodes": 0}, "has no episodes"),
        ({"data_format": "zarr"}, "Minari's format 'zarr', which is not known"),
        ({"observation_space": "{"}, "not the metadata of a Minari dataset"),
    ):
        (data / "metadata.json").write_text(json.dumps(metadata | change))
        with pytest.raises(ValueError, match=message):
            import_log("mine/test-v0", tmp_path / "log")
    assert left_behind(tmp_path, "datasets") == []


FOREIGN = [
    ([], "it is '\\[\\]', no object"),
    ("text", "it is 'text', no object"),
    ({"total_episodes": None}, "'total_episodes' is missing"),
    ({"total_episodes": "two"}, "'total_episodes' is 'two'"),
    ({"total_steps": [7]}, r"'total_steps' is '\[7\]'"),
    ({"data_format": None}, "'data_format' is missing"),
    ({"observation_space": {"type": "Box"}}, "'observation_space' is "),
    ({"observation_space": "[1]"}, r"of the observations, it is '\[1\]', no object"),
    ({"action_space": "{}"}, "of the actions, 'type' is missing"),
    ({"action_space": '{"type": ["Box"]}'}, r"of the actions, 'type' is "),
    ({"observation_space": '{"type": "Box", "shape": [2]}'}, "observations, 'dtype' is missing"),
    ({"observation_space": '{"type": "Box", "dtype": "float64"}'}, "'shape' is missing"),
    (
        {"observation_space": '{"type": "Box", "dtype": "float64", "shape": ["a"]}'},
        r"'shape' is \"\['a'\]\", no whole numbers",
    ),
    ({"action_space": '{"type": "Discrete", "n": "3"}'}, "of the actions, 'n' is '3'"),
    ({"action_space": '{"type": "Discrete", "n": 3, "start": "0"}'}, "actions, 'start' is '0'"),
    ({"action_space": '{"type": "MultiDiscrete", "nvec": 3}'}, "actions, 'nvec' is '3'"),
    (
        {"observation_space": '{"type": "Dict", "subspaces": {"x": {"type": "Box"}}}'},
        "of the observations, 'dtype' is missing",
    ),
    ({"observation_space": '{"type": "Tuple", "subspaces": 2}'}, "'subspaces' is '2'"),
    ({"env_spec": "[]"}, r"of 'env_spec', it is '\[\]', no object"),
    ({"env_spec": "{"}, "Expecting property name"),
    ({"env_spec": 5}, "'env_spec' is '5'"),
]


@pytest.mark.parametrize(("change", "message"), FOREIGN)
def test_metadata_of_something_else(datasets, tmp_path, change, message):
    create(buffers(episodes([3, 4])), action=spaces.Discrete(3))
    file = datasets / "mine/test-v0/data/metadata.json"
    metadata = json.loads(file.read_text())
    if isinstance(change, dict):
        change = {k: v for k, v in (metadata | change).items() if v is not None}
    file.write_text(json.dumps(change))
    with pytest.raises(ValueError, match=message) as raised:
        import_log("mine/test-v0", tmp_path / "log")
    text = str(raised.value)
    assert text.startswith(f"{file} is not the metadata of a Minari dataset: ")
    assert text.endswith("if the folder holds something else, say what by --format.")
    assert "\n" not in text and left_behind(tmp_path, "datasets") == []


def test_a_folder_of_something_else_with_metadata(tmp_path):
    """As the message says, --format helps."""
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "steps.parquet", step_rows(episodes([3, 2])))
    (tmp_path / "mine" / "metadata.json").write_bytes('{"author": "Zoé"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine/metadata.json is not the metadata .*--format"):
        import_log(tmp_path / "mine", tmp_path / "log")
    report = import_log(
        tmp_path / "mine", tmp_path / "log", reader=partial(open_source, format="parquet")
    )
    assert report.steps == 5


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_an_episode_of_something_else(datasets, tmp_path, kind):
    create(buffers(episodes([3, 4])), kind, action=spaces.Discrete(3))
    episode = datasets / "mine/test-v0/data/1"
    file = next(episode.glob(f"*.{kind}"))

    def refused(message, path):
        with pytest.raises(ValueError, match=message) as raised:
            import_log("mine/test-v0", tmp_path / "log")
        assert str(raised.value).count(str(path)) == 1 and "\n" not in str(raised.value)

    for text in ("[]", '{"seed": "x"}', "{"):
        (episode / "metadata.json").write_text(text)
        refused("is not the metadata of a Minari dataset", episode / "metadata.json")
    (episode / "metadata.json").unlink()
    refused("is not the metadata of a Minari dataset: there is no such file", episode)
    table = ds.dataset(file, format="ipc" if kind == "arrow" else kind).to_table()
    ds.write_dataset(
        table.drop_columns(["rewards"]),
        episode,
        format=kind,
        basename_template=file.name.replace("0", "{i}"),
        existing_data_behavior="overwrite_or_ignore",
    )
    refused("has no column 'rewards', which every episode needs", file)
    for content in (b"junk" * 40, b"", file.read_bytes()[:-60]):
        file.write_bytes(content)
        refused(f"cannot be read as {kind}", file)


def test_what_minari_collects_from_gymnasium_is_read(datasets, tmp_path):
    """The collector needs JAX to append; what it does besides is done here by hand."""
    env = gym.make("CartPole-v1")
    buffer = []
    for i in range(2):
        observation, _ = env.reset(seed=i)
        env.action_space.seed(i)
        seen, acted, rewards, ends = [observation], [], [], []
        while not ends or not any(ends[-1]):
            acted.append(env.action_space.sample())
            observation, reward, *end, _ = env.step(acted[-1])
            seen.append(observation)
            rewards.append(reward)
            ends.append(end)
        terminations, truncations = zip(*ends, strict=True)
        buffer.append(
            EpisodeBuffer(i, i, None, seen, acted, rewards, [*terminations], [*truncations])
        )
    create(buffer, action=env.action_space, observation=env.observation_space, env="CartPole-v1")
    report, log = imported(datasets / "mine/test-v0" / "data", tmp_path)
    assert report.schema == TrajectoryLog.open(report.log).schema
    assert report.schema.observation == ArraySpec("float32", (4,))
    assert log.steps == sum(len(b.rewards) for b in buffer)
    assert log.terminated.all() and log.seed.tolist() == [0, 1]
    assert (log.observations[1] == buffer[0].observations[1]).all()
