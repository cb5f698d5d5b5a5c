from dataclasses import replace

import pytest
from report_runs import progress
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reweigh.report.tensorboard import TensorBoardWriter

TAGS = {
    "return/evaluation", "return/training", "weights/ess", "weights/mean", "weights/max",
    "improvement/kl", "improvement/epochs", "policy/entropy", "loss/policy", "loss/value",
    "reuse/steps", "reuse/uses", "time/seconds", "time/episodes",
}  # fmt: skip


def write(folder, history):
    writer = TensorBoardWriter(folder)
    for each in history:
        writer.write(each)
    writer.close()


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


def points(events, tag):
    return [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars(tag)]


def test_events_hold_the_metrics_over_environment_steps(tmp_path):
    history = [progress(i) for i in range(4)]
    write(tmp_path, history)
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == TAGS
    assert points(events, "return/evaluation") == [(p.steps, p.evaluation_return) for p in history]
    assert points(events, "weights/ess") == [(p.steps, p.ess) for p in history]
    assert points(events, "improvement/kl") == [(p.steps, p.kl) for p in history]
    assert points(events, "reuse/uses") == [(p.steps, p.uses) for p in history]
    # The second iteration ended no episode.
    assert [step for step, _ in points(events, "return/training")] == [128, 384, 512]


def test_histogram_holds_the_weights_by_log10(tmp_path):
    write(tmp_path, [progress(0)])
    (event,) = read(tmp_path).Histograms("weights/log10")
    counts = event.histogram_value
    assert (event.step, counts.num) == (128, 128)
    filled = {
        round(limit, 6): n for limit, n in zip(counts.bucket_limit, counts.bucket, strict=True) if n
    }
    assert filled == {-1.9: 28, 0.1: 100}


def test_a_resumed_run_replaces_what_it_does_again(tmp_path):
    write(tmp_path, [progress(i) for i in range(5)])
    again = [replace(progress(i), ess=0.5) for i in range(3, 6)]
    write(tmp_path, again)
    events = read(tmp_path)
    expected = [(p.steps, p.ess) for p in [*map(progress, range(3)), *again]]
    assert points(events, "weights/ess") == expected
    assert [e.step for e in events.Histograms("weights/log10")] == [s for s, _ in expected]


def test_nothing_is_written_before_the_first_iteration(tmp_path):
    write(tmp_path / "tensorboard", [])
    assert not (tmp_path / "tensorboard").exists()
