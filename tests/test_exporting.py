import json
from dataclasses import replace

import minari
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_samples import CARTPOLE, assert_same_bits, random_trajectories
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing_samples import left_behind

from reweigh.data import ArraySpec, TrajectoryLog, TrajectorySchema
from reweigh.data.exporting import export_log
from reweigh.data.importing import Layout, import_log
from reweigh.data.importing.write import keep
from reweigh.data.schema import MISSING

DTYPES = (
    ["bool", "float16", "float32", "float64"]
    + [f"int{bits}" for bits in (8, 16, 32, 64)]
    + [f"uint{bits}" for bits in (8, 16, 32, 64)]
)
TARGETS = ["log.parquet", "log-v3"]


def fragments(schema, shapes, seed=0):
    """Random fragments of episodes: of each the lengths of its fragments.

    The fragments of an episode follow one another, and have policies, seeds, and observations after
    them that are as random as all else.
    """
    rng = np.random.default_rng(seed)
    made = random_trajectories(schema, [n for lengths in shapes for n in lengths], rng)
    spans = [len(lengths) for lengths in shapes]
    last = np.cumsum(spans) - 1
    starts = [np.append(0, np.cumsum(lengths)[:-1]) for lengths in shapes]
    first = rng.integers(0, 3, len(shapes))
    ends = {name: np.zeros(len(made), dtype=bool) for name in ("terminated", "truncated")}
    ends["terminated"][last] = rng.random(len(shapes)) < 0.5
    ends["truncated"][last] = rng.random(len(shapes)) < 0.5  # both, and neither, among them
    log_prob_behaviour = made.log_prob_behaviour
    if schema.behaviour == MISSING:
        # Any NaN: the bits that say which are to come back as well.
        bits = 0x7FF8000000000000 + rng.integers(0, 1 << 40, made.steps)
        log_prob_behaviour = bits.astype(np.uint64).view(np.float64)
    return replace(
        made,
        **ends,
        log_prob_behaviour=log_prob_behaviour,
        episode=np.repeat(rng.permutation(len(shapes)), spans),
        time_start=np.concatenate([s + f for s, f in zip(starts, first, strict=True)]),
        policy_version=rng.integers(0, 3, len(made)),
    )


def logged(path, trajectories, schema):
    log = TrajectoryLog.create(path, schema)
    log.append(trajectories)
    return log


def there_and_back(log, folder, target, **options):
    """What a log holds that was exported and imported again."""
    path = export_log(log, folder / target)
    report = import_log(path, folder / f"again-{target}", unfinished=keep, **options)
    assert report.schema == log.schema
    return TrajectoryLog.open(report.log).read()


# The round trip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape, target):
    spec = ArraySpec(dtype, shape)
    schema = TrajectorySchema("X", spec, spec, False, "estimated by counting")
    log = logged(tmp_path / "log", fragments(schema, [[3], [2, 1]]), schema)
    assert_same_bits(there_and_back(log, tmp_path, target), log.read())


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=6),
    missing=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_fragments_come_back_bit_for_bit(tmp_path_factory, shapes, missing, seed):
    folder = tmp_path_factory.mktemp("export")
    schema = replace(CARTPOLE, behaviour=MISSING) if missing else CARTPOLE
    log = logged(folder / "log", fragments(schema, shapes, seed), schema)
    for target in TARGETS:
        assert_same_bits(there_and_back(log, folder, target, max_steps=5), log.read())


@pytest.mark.parametrize("target", TARGETS)
def test_parts_of_an_episode_that_do_not_meet_come_back(tmp_path, target):
    made = fragments(CARTPOLE, [[3, 2], [2, 2]])
    made = replace(
        made, time_start=made.time_start + np.array([0, 4, 0, 0])
    )  # between them, steps are lost
    log = logged(tmp_path / "log", made, CARTPOLE)
    assert_same_bits(there_and_back(log, tmp_path, target), log.read())


@pytest.mark.parametrize("target", TARGETS)
def test_a_log_goes_out_a_few_episodes_at_a_time(tmp_path, monkeypatch, target):
    monkeypatch.setattr("reweigh.data.exporting.MAX_STEPS", 10)
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[4]] * 9), CARTPOLE)
    seen = []
    export_log(log, tmp_path / target, progress=lambda *args: seen.append(args))
    assert seen == [(8, 36), (16, 36), (24, 36), (32, 36), (36, 36)]
    import_log(tmp_path / target, tmp_path / "again", unfinished=keep)
    assert_same_bits(TrajectoryLog.open(tmp_path / "again").read(), log.read())


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_may_lose_its_log_probs(tmp_path, target):
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[3], [2, 1]]), CARTPOLE)
    export_log(log, tmp_path / target)
    layout = Layout(log_prob_behaviour="")
    report = import_log(tmp_path / target, tmp_path / "again", layout=layout, unfinished=keep)
    assert report.schema == replace(CARTPOLE, behaviour=MISSING)
    assert np.isnan(TrajectoryLog.open(tmp_path / "again").read().log_prob_behaviour).all()
    with pytest.raises(ValueError, match="says itself what its columns are"):
        import_log(tmp_path / target, tmp_path / "more", layout=Layout(rewards="r"))


# What others find


def test_minari_opens_it(tmp_path):
    schema = replace(
        CARTPOLE,
        observation=ArraySpec("int64", (), (5,)),
        action=ArraySpec("int64", (2,), (3, 4)),
    )
    made = fragments(schema, [[3, 2], [4]])
    made = replace(
        made,
        observations=made.observations % 5,
        final_observations=made.final_observations % 5,
        actions=made.actions % 3,
        episode=np.array([0, 0, 1]),
    )
    log = logged(tmp_path / "log", made, schema)
    export_log(log, tmp_path / "mine-v2")
    dataset = minari.MinariDataset(tmp_path / "mine-v2" / "data")
    assert dataset.id == "mine-v2" and dataset.total_episodes == 2 and dataset.total_steps == 9
    assert dataset.observation_space == spaces.Discrete(5)
    assert dataset.action_space == spaces.MultiDiscrete([3, 4])
    first = dataset[0]
    assert first.observations.tolist() == [
        *made.observations[:5].tolist(),
        made.final_observations[1],
    ]
    assert first.actions.tolist() == made.actions[:5].tolist()
    assert first.terminations.tolist() == [False] * 4 + [made.terminated[1]]
    assert first.truncations.tolist() == [False] * 4 + [made.truncated[1]]
    assert first.infos["log_prob_behaviour"][1:].tolist() == made.log_prob_behaviour[:5].tolist()
    versions = np.repeat(made.policy_version, made.lengths)
    assert first.infos["policy_version"][1:].tolist() == versions[:5].tolist()
    (metadata,) = dataset.storage.get_episode_metadata([0])
    assert metadata["seed"] == made.seed[0] and metadata["total_steps"] == 5


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool", "int64"])
@pytest.mark.parametrize("shape", [(), (2,), (40, 40, 3)])
def test_minari_reads_the_entries_as_they_are(tmp_path, dtype, shape):
    spec = ArraySpec(dtype, shape)
    schema = replace(CARTPOLE, observation=spec, action=spec, discrete_actions=False)
    made = fragments(schema, [[3]])
    export_log(logged(tmp_path / "log", made, schema), tmp_path / "mine")
    dataset = minari.MinariDataset(tmp_path / "mine" / "data")
    assert dataset.id == "mine-v0"
    assert dataset[0].observations[:-1].tobytes() == made.observations.tobytes()
    assert dataset[0].actions.tobytes() == made.actions.tobytes()


def test_among_minaris_datasets_it_has_the_name_of_its_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[3]]), CARTPOLE)
    export_log(log, tmp_path / "datasets" / "mine" / "poles-v1")
    assert minari.load_dataset("mine/poles-v1").total_steps == 3
    assert list(minari.list_local_datasets()) == ["mine/poles-v1"]
    import_log("mine/poles-v1", tmp_path / "again", unfinished=keep)
    assert_same_bits(TrajectoryLog.open(tmp_path / "again").read(), log.read())


def test_what_minari_combines_keeps_log_probs_and_policies(tmp_path, monkeypatch):
    """What a log alone knows is lost there; the rest is found by its usual names."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    made = replace(fragments(CARTPOLE, [[3, 2]]), policy_version=np.array([4, 7]))
    made = replace(made, time_start=np.array([0, 3]), terminated=np.array([False, True]))
    log = logged(tmp_path / "log", made, CARTPOLE)
    export_log(log, tmp_path / "datasets" / "one-v0")
    minari.combine_datasets([minari.load_dataset("one-v0")], "both-v0")
    report = import_log("both-v0", tmp_path / "again")
    again = TrajectoryLog.open(tmp_path / "again").read()
    assert report.format == "Minari, hdf5"
    assert again.log_prob_behaviour.tobytes() == made.log_prob_behaviour.tobytes()
    assert again.policy_version.tolist() == [4, 7] and again.lengths.tolist() == [3, 2]


def test_any_reader_of_parquet_finds_the_episodes(tmp_path):
    made = fragments(CARTPOLE, [[3, 2], [4]])
    export_log(logged(tmp_path / "log", made, CARTPOLE), tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    rows = {row["episode"]: row for row in table.to_pylist()}
    row = rows[made.episode[0]]
    assert row["rewards"] == made.rewards[:5].tolist()
    assert np.array(row["observations"]).shape == (5, 4)
    assert row["lengths"] == [3, 2] and row["policy_version"] == made.policy_version[:2].tolist()
    assert row["time_start"] == made.time_start[0] and row["truncated"] == made.truncated[1]
    assert table.schema.field("log_prob_behaviour").metadata == {b"unit": b"nat"}
    assert json.loads(table.schema.metadata[b"reweigh.schema"])["environment"] == "CartPole-v1"


# Refusals


def test_what_is_there_is_not_written_over(tmp_path):
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[3]]), CARTPOLE)
    for target in TARGETS:
        export_log(log, tmp_path / target)
        with pytest.raises(ValueError, match="exists already"):
            export_log(log, tmp_path / target)


def test_no_other_suffix_and_no_empty_log(tmp_path):
    log = TrajectoryLog.create(tmp_path / "log", CARTPOLE)
    with pytest.raises(ValueError, match="is empty: there is nothing to export"):
        export_log(log, tmp_path / "x.parquet")
    log.append(fragments(CARTPOLE, [[3]]))
    with pytest.raises(ValueError, match=r"x.csv is neither \*.parquet nor a folder"):
        export_log(log, tmp_path / "x.csv")
    assert left_behind(tmp_path) == ["log"]


def test_a_failure_leaves_nothing(tmp_path):
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[3]]), CARTPOLE)

    def fail(*_):
        raise KeyboardInterrupt

    for target in TARGETS:
        with pytest.raises(KeyboardInterrupt):
            export_log(log, tmp_path / target, progress=fail)
    assert left_behind(tmp_path) == ["log"]


def test_a_damaged_export_is_noticed(tmp_path):
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[300]]), CARTPOLE)
    path = export_log(log, tmp_path / "x.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x.parquet is damaged.*Export it again"):
        import_log(path, tmp_path / "again", unfinished=keep)
    folder = export_log(log, tmp_path / "x-v0")
    (folder / "data" / "main_data.hdf5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"main_data.hdf5 is damaged"):
        import_log(folder, tmp_path / "again", unfinished=keep)
    assert left_behind(tmp_path) == ["log", "x-v0", "x.parquet"]


def test_lists_that_were_changed_are_noticed(tmp_path):
    log = logged(tmp_path / "log", fragments(CARTPOLE, [[3], [4]]), CARTPOLE)
    path = export_log(log, tmp_path / "x.parquet")
    table = pq.read_table(path)
    rewards = table.column("rewards").to_pylist()
    moved = [[*rewards[0], rewards[1][0]], rewards[1][1:]]  # as many in all
    column = table.schema.get_field_index("rewards")
    field = table.schema.field("rewards")
    changed = table.set_column(column, field, [moved])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match=r"x.parquet is damaged: rewards is shorter or longer"):
        import_log(path, tmp_path / "again", unfinished=keep)
