"""How fast a log of any size is evaluated, and in how much memory.

    python benchmarks/logs.py                       # 100 million steps: 2.4 GB, then removed
    python benchmarks/logs.py --steps 10_000_000

The log is a Parquet file of one row an episode: rewards and the log-probabilities of each action
under the behaviour and under the target, as lists, and the number of steps. It is evaluated by
self-normalised per-decision importance sampling with its standard error, in two passes. Time and
memory are those of a process of its own that does nothing else.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import reweigh as rw
from reweigh.evaluation.estimating import estimate
from reweigh.evaluation.intervals import student_t
from reweigh.recipes.values import weighted_per_decision

EPISODES_AT_ONCE = 1000
LISTS = ("rewards", "log_probs_target", "log_probs_behaviour")


def write(path: Path, steps: int, seed: int = 0) -> None:
    """Episodes of 50 to 150 steps whose target is a little off their behaviour."""
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [("length", pa.int64()), *((name, pa.list_(pa.float64())) for name in LISTS)]
    )
    # Plain: numbers that differ in every bit are neither coded nor compressed to advantage.
    options = {"use_dictionary": False, "compression": "none", "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as file:
        written = 0
        while written < steps:
            lengths = rng.integers(50, 151, size=EPISODES_AT_ONCE)
            lengths = lengths[np.cumsum(lengths) <= steps - written]
            if not len(lengths):
                lengths = np.array([steps - written])
            count = int(lengths.sum())
            behaviour = rng.normal(-1.0, 0.3, count)
            columns = (rng.normal(size=count), behaviour + rng.normal(0, 0.05, count), behaviour)
            offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
            lists = [pa.ListArray.from_arrays(offsets, pa.array(x)) for x in columns]
            file.write_table(pa.Table.from_arrays([pa.array(lengths), *lists], schema=schema))
            written += count


def read(path: Path) -> Iterator[rw.Sample]:
    """The file's episodes, some at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            (rows,) = file.read_row_group(group).to_batches()
            flat = {name: torch.from_dlpack(rows.column(name).flatten()) for name in LISTS}
            yield rw.Sample(
                flat["log_probs_target"],
                flat["log_probs_behaviour"],
                rw.Segments.packed(torch.from_dlpack(rows.column("length"))),
                flat["rewards"],
                discount=0.99,
            )


def measure(path: Path) -> None:
    """Prints an evaluation of the file, its time and memory as JSON."""
    began, began_cpu = time.perf_counter(), time.process_time()
    answers = estimate(
        partial(read, path),
        {"weighted_per_decision": weighted_per_decision.terms},
        interval=student_t,
        level=0.95,
    )
    result = answers.estimates["weighted_per_decision"]
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time() - began_cpu,
                "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "value": result.value,
                "standard_error": result.standard_error,
                "effective_sample_size": result.effective_sample_size,
                "episodes": result.episodes,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the file is written")
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        measure(arguments.measure)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "steps.parquet"
        write(path, arguments.steps)
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        size = path.stat().st_size
    result = json.loads(done.stdout)
    print(f"{arguments.steps:,} steps in {result['episodes']:,} episodes, {size / 1e9:.1f} GB")
    print(f"weighted per-decision: {result['value']:.5f} ± {result['standard_error']:.5f}")
    print(f"effective sample size {result['effective_sample_size']:,.0f} episodes")
    print(f"{arguments.steps / result['seconds'] / 1e6:.1f} million steps a second")
    print(f"{result['cpu_seconds'] / arguments.steps * 1e9:.0f} ns of processor time a step")
    print(f"{result['megabytes']:,.0f} MB at most")


if __name__ == "__main__":
    main()
