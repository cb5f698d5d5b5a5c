"""What a person sees of learning from a log: the live display, the summary, JSON."""

import io
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from report_evaluations import estimate, without_weights
from report_terminals import Terminal, printed, words
from rich.cells import cell_len
from rich.console import Console
from torch import nn

import reweigh as rw
from reweigh.acting.tabular import TabularPolicy
from reweigh.core.diagnostics import read, weight_health
from reweigh.data.episodes import Unfinished
from reweigh.learning.config import EpochProgress, LearnConfig
from reweigh.learning.improvement import Comparison, Gain
from reweigh.learning.learn import Learnt, learning
from reweigh.learning.start import Counts, Start
from reweigh.report.learning_display import LearningDisplay, line
from reweigh.report.learning_summary import learnt_json, outcome, print_learnt

CONFIG = LearnConfig(epochs=40)
SHOWN = "improvement shown at 95 %: +3.1 on the behaviour's 20.31, and at least +2.4"
NOT_SHOWN = "no improvement shown at 95 %: +0.1 on the behaviour's 20.31, and at least -0.4"


def epoch(i: int, **changes) -> EpochProgress:
    """Epoch i of 2 seconds each; every fourth is undone, and the fifth to the ninth are better."""
    made = EpochProgress(
        epoch=i,
        objective=20.0 + i,
        ess=0.95 - 0.03 * i,
        kl=0.01 * i,
        undone=None,
        improvement=0.2 * i,
        predicted_bound=0.2 * i - 1.0,
        best=4 < i < 10,
        seconds=2.0 * i,
    )
    if i % 4 == 0:
        made = replace(made, undone="kl", improvement=None, predicted_bound=None, best=False)
    return replace(made, **changes)


HISTORY = tuple(epoch(i) for i in range(1, 13))


def learnt(**changes) -> Learnt:
    weights = torch.log(torch.tensor([0.5] * 40 + [1.5] * 40, dtype=torch.float64))
    compared = Comparison(
        level=0.95,
        behaviour=without_weights("behaviour", 20.31, 0.3),
        learnt=estimate("learnt", 23.41, 0.48),
        gain=Gain(estimate("gain", 3.1, 0.35), read(weight_health(weights)).total),
    )
    made = Learnt(
        policy=nn.Identity(),
        shown=True,
        verdict=SHOWN,
        comparison=compared,
        candidate=nn.Identity(),
        start=Start(nn.Identity(), None, estimated=False, unseen=True),
        counts=Counts(training=812, validation=406, test=80),
        unfinished=Unfinished(0, 0),
        progress=HISTORY,
        notes=("The log's log-probabilities are not recorded.",),
    )
    return replace(made, **changes)


def show(console, history, log):
    with LearningDisplay(CONFIG, console, log=log) as display:
        for each in history:
            display.show(each)


def shown(history, width=80, encoding="utf-8", log="runs/a/log"):
    terminal = Terminal(encoding)
    show(terminal.console(width), history, log)
    return terminal.screen()


def piped(history, **environment):
    return printed(lambda console: show(console, history, "log"), **environment)


def summary(made, width=80, encoding="utf-8", **options):
    return printed(lambda console: print_learnt(made, console, **options), width, encoding)


# ------------------------------------------------------------------ the live display


def test_a_pipe_gets_a_plain_line_an_epoch():
    begun, *lines = piped(HISTORY[:6], FORCE_COLOR="1", TERM="xterm-256color").splitlines()
    assert begun == "learning from log"
    assert lines[0] == ("epoch 1/40  objective 21  ESS 92%  KL 0.010  improvement +0.2  bound -0.8")
    assert lines[3] == "epoch 4/40  objective 24  ESS 83%  KL 0.040  undone (KL limit)"
    assert lines[5].endswith("improvement +1.2  bound +0.2 (best)")


def test_plain_lines_come_once_a_second_and_the_last_one_always():
    fast = [replace(each, seconds=0.4 * each.epoch) for each in HISTORY[:5]]
    assert [text.split("/")[0] for text in piped(fast).splitlines()[1:]] == [
        "epoch 1", "epoch 4", "epoch 5",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_live_display_says_everything_and_fits(width):
    seen = shown(HISTORY[:11], width)
    assert all(cell_len(text) <= width for text in seen.splitlines())
    assert "…" not in seen
    for expected in (
        "runs/a/log", "11 of 40", "at most 58 s left", "31", "weighted_doubly_robust", "+2.2",
        "on validation episodes", "+1.2", "best in epoch 9: +0.8", "62%", "at least 50%",
        "0.110 of 1", "nats per step", "2 epochs", "epoch 8: KL limit",
    ):  # fmt: skip
        assert all(word in words(seen) for word in expected.split()), expected


def test_what_there_is_not_yet_is_not_shown():
    seen = shown([epoch(4)])
    assert "improved" not in seen
    assert "bound" not in seen
    assert "1 epoch " in seen
    seen = shown([epoch(1)])
    assert "undone" not in seen
    assert "nothing to test yet" in seen
    assert "reading the log" in shown([])


def test_curves_leave_out_what_is_not_finite():
    history = [epoch(1), epoch(2, predicted_bound=math.nan, kl=math.inf, objective=math.nan)]
    assert "inf of 1" in shown(history)


def test_a_terminal_without_unicode_gets_ascii():
    seen = shown(HISTORY, encoding="ascii", log="путь")
    assert seen.isascii()
    assert "????" in seen
    assert "###" in seen


def test_watching_shows_every_epoch_and_returns_the_outcome():
    def epochs():
        yield from HISTORY
        return learnt()

    raw = io.StringIO()
    with LearningDisplay(CONFIG, Console(file=raw), log="log") as display:
        assert display.watch(epochs()).verdict == SHOWN
    assert raw.getvalue().count("epoch ") == len(HISTORY)


def test_an_error_while_learning_passes_through():
    console = Terminal().console()
    with pytest.raises(KeyboardInterrupt), LearningDisplay(CONFIG, console, log="log"):
        raise KeyboardInterrupt


def test_line_of_the_other_bound():
    assert line(epoch(4, undone="ess"), CONFIG).endswith("undone (ESS limit)")


# ------------------------------------------------------------------ the summary


def test_one_sentence_says_whether_an_improvement_is_shown():
    assert outcome(learnt()) == (
        "Improvement shown at 95 %: +3.1 on the behaviour's 20.31, and at least +2.4. The policy "
        "to use is what was learnt."
    )
    assert outcome(learnt(shown=False, verdict=f"{NOT_SHOWN}.")) == (
        "No improvement shown at 95 %: +0.1 on the behaviour's 20.31, and at least -0.4. The "
        "policy that learning began with is kept."
    )


def test_the_summary_says_what_it_rests_on():
    text = summary(learnt(), places=[("policy", "runs/a b/policy")])
    rows = [re.split(r"\s{2,}", row.strip()) for row in text.splitlines() if "  " in row]
    assert ["value", "SE", "lower 95% bound", "upper 95% bound"] in rows
    assert ["behaviour", "20.31", "0.30", "19.71", "20.91"] in rows
    assert ["learnt", "23.41", "0.48", "22.45", "24.37"] in rows
    assert ["improvement", "3.10", "0.35", "2.40", "3.80"] in rows
    assert (
        "Learnt from 812 episodes in 12 epochs; 406 others chose among the policies, and 80 were "
        "kept for the test. What was tested is the policy of epoch 9. 3 epochs went beyond the "
        "trust region and had to be undone. The weights of the test episodes are worth 64 episodes "
        "of the new policy (80.0%)."
    ) in words(text)
    assert "- The log's log-probabilities are not recorded." in text
    assert re.search(r"policy +runs/a b/policy\n", text)
    assert "\x1b" not in text


def test_where_nothing_was_worth_testing_nothing_is_compared():
    text = summary(
        learnt(
            shown=False, verdict=NOT_SHOWN, comparison=None, candidate=None, notes=(),
            progress=tuple(replace(each, best=False, undone=None) for each in HISTORY),
        )
    )  # fmt: skip
    assert words(text).startswith("No improvement shown")
    for absent in ("value", "What was tested", "undone", "worth", "To be known"):
        assert absent not in text


@pytest.mark.parametrize("width", [60, 80])
def test_the_summary_fits(width):
    text = summary(learnt(verdict=SHOWN * 3), width)
    assert all(cell_len(row) <= width for row in text.splitlines())
    assert "…" not in text


def test_the_summary_can_be_printed_where_the_encoding_lacks_a_letter():
    doubtful = learnt(verdict=f"{SHOWN} ± путь", notes=("[red]путь",))
    text = summary(doubtful, encoding="ascii", places=[("policy", "путь")])
    assert "+/- ????" in words(text)
    assert "[red]????" in text


def test_json_holds_everything_but_the_policies():
    def refuse(constant):
        raise AssertionError(constant)

    made = learnt(progress=(*HISTORY, epoch(13, predicted_bound=math.nan)))
    content = json.loads(learnt_json(made), parse_constant=refuse)
    assert content["shown"] is True
    assert content["verdict"] == SHOWN
    assert content["comparison"]["gain"]["estimate"]["low"] == 3.1 - 0.7
    assert content["comparison"]["behaviour"]["k_hat"] is None
    assert content["comparison"]["gain"]["weights"]["sample_size"] == 80
    assert content["episodes"] == {"training": 812, "validation": 406, "test": 80}
    assert content["notes"] == list(made.notes)
    assert content["epochs"][0] == asdict(HISTORY[0])
    assert content["epochs"][-1]["predicted_bound"] is None
    assert content["folder"] is None
    written = json.loads(learnt_json(made, folder=Path("runs/a b")))
    assert written["folder"] == "runs/a b"
    nothing = json.loads(learnt_json(learnt(comparison=None, shown=False)))
    assert nothing["comparison"] is None


# ------------------------------------------------------------------ end to end


def logged(episodes):
    """One step an episode; the second of two actions earns 1, and the behaviour takes it half."""
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, episodes)
    nothing = np.zeros(episodes, dtype=np.int64)
    return rw.Trajectories(
        observations=nothing,
        actions=actions,
        rewards=actions + rng.normal(0, 0.1, episodes),
        log_prob_behaviour=np.full(episodes, math.log(0.5)),
        lengths=nothing + 1,
        final_observations=nothing,
        terminated=nothing == 0,
        truncated=nothing == 1,
        policy_version=nothing,
        episode=np.arange(episodes),
        seed=nothing,
        time_start=nothing,
    )


def test_from_a_log_to_the_summary():
    raw = io.StringIO()
    with LearningDisplay(CONFIG, Console(file=raw), log="log") as display:
        policy = TabularPolicy([1], (), [2])
        config = replace(CONFIG, epochs=3, estimator="weighted_per_decision")
        made = display.watch(learning(logged(400), policy, config=config))
    assert "epoch 1/40" in raw.getvalue()
    assert made.shown
    assert words(summary(made)).startswith("Improvement shown at 95 %:")
    assert json.loads(learnt_json(made))["shown"] is True
