"""Episodes as others record them, for the tests of reweigh.data.importing."""

import csv
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reweigh.data import Trajectories, TrajectoryLog
from reweigh.data.importing import READERS, Layout, import_log


@dataclass
class Episode:
    """One episode, in plain lists; `after` is the observation after its last step."""

    observations: list
    actions: list
    rewards: list
    log_prob_behaviour: list
    after: object
    terminated: bool = True
    truncated: bool = False
    versions: list = field(default_factory=list)


def episodes(lengths, *, discrete=True, shape=(2,), seed=0):
    """Random episodes of the given lengths, by turns terminated and truncated."""
    rng = np.random.default_rng(seed)
    made = []
    for i, length in enumerate(lengths):
        observations = rng.normal(size=(length + 1, *shape)).tolist()
        actions = rng.integers(0, 3, length) if discrete else rng.normal(size=(length, 2))
        made.append(
            Episode(
                observations=observations[:-1],
                actions=actions.tolist(),
                rewards=rng.normal(size=length).tolist(),
                log_prob_behaviour=np.log(rng.uniform(0.1, 0.9, length)).tolist(),
                after=observations[-1],
                terminated=i % 2 == 0,
                truncated=i % 2 == 1,
            )
        )
    made[0].actions[-1] = 2 if discrete else made[0].actions[-1]  # all choices are there
    return made


def step_rows(given, *, after=True):
    """One row a step."""
    rows = []
    for number, e in enumerate(given):
        following = [*e.observations[1:], e.after]
        for t in range(len(e.rewards)):
            last = t == len(e.rewards) - 1
            rows.append(
                {
                    "episode": number,
                    "step": t,
                    "observation": e.observations[t],
                    "action": e.actions[t],
                    "reward": e.rewards[t],
                    "log_prob": e.log_prob_behaviour[t],
                    "terminated": last and e.terminated,
                    "truncated": last and e.truncated,
                    **({"next_observation": following[t]} if after else {}),
                }
            )
    return rows


def episode_rows(given):
    """One row an episode, the observation after the last step among the others."""
    return [
        {
            "episode": number,
            "observations": [*e.observations, e.after],
            "actions": e.actions,
            "rewards": e.rewards,
            "log_prob_behaviour": e.log_prob_behaviour,
            "terminated": e.terminated,
            "truncated": e.truncated,
        }
        for number, e in enumerate(given)
    ]


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format that the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return path


def expected(given) -> Trajectories:
    """The episodes as a log gives them back."""
    lengths = np.array([len(e.rewards) for e in given])
    return Trajectories(
        observations=np.concatenate([np.array(e.observations) for e in given]),
        actions=np.concatenate([np.array(e.actions) for e in given]),
        rewards=np.concatenate([np.array(e.rewards, dtype=float) for e in given]),
        log_prob_behaviour=np.concatenate(
            [np.array(e.log_prob_behaviour, dtype=float) for e in given]
        ),
        lengths=lengths,
        final_observations=np.array([e.after for e in given]),
        terminated=np.array([e.terminated for e in given]),
        truncated=np.array([e.truncated for e in given]),
        policy_version=np.zeros(len(given), dtype=np.int64),
        episode=np.arange(len(given)),
        seed=np.full(len(given), -1),
        time_start=np.zeros(len(given), dtype=np.int64),
    )


def imported(source, folder: Path, **options):
    """The report of an import, and all that the new log holds."""
    path = folder / "log"
    layout = options.pop("layout", Layout())
    report = import_log(source, path, layout=layout, **options)
    return report, TrajectoryLog.open(path).read()


def in_pieces(kind: str, rows: int):
    """A reader of a format that reads about so many rows at a time."""
    text = kind in ("csv", "jsonl")
    return partial(READERS[kind], **({"block_bytes": 120 * rows} if text else {"max_steps": rows}))


def left_behind(folder: Path, *sources: str) -> list[str]:
    """What is in a folder, other than what was there to begin with."""
    return sorted(path.name for path in folder.iterdir() if path.name not in sources)
