"""What came of learning from a log: the lines a person reads at the end, and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from reweigh.learning.improvement import Comparison
from reweigh.learning.learn import Learnt
from reweigh.report.wording import (
    as_json,
    counted,
    decimals_for,
    error,
    figure,
    percent,
    print_list,
    print_places,
    print_table,
    say,
    unfinished_note,
)


def print_learnt(
    learnt: Learnt, console: Console, *, places: Sequence[tuple[str, str]] = ()
) -> None:
    """Prints whether an improvement is shown, what that rests on, and where things are.

    Args:
        learnt: The outcome.
        console: Where to print.
        places: Names, and paths or commands, such as where the policy was written.
    """
    console.print()
    say(outcome(learnt), console, "bold green" if learnt.shown else "bold yellow")
    console.print()
    if learnt.comparison is not None:
        _print_comparison(learnt.comparison, console)
    say(" ".join(_sentences(learnt)), console)
    console.print()
    print_list("To be known beside it:", [("-", note) for note in learnt.notes], console)
    print_places(places, console)


def outcome(learnt: Learnt) -> str:
    """Whether an improvement is shown, and which policy is to be used."""
    said = learnt.verdict[0].upper() + learnt.verdict[1:].rstrip(".")
    kept = "The policy to use is what was learnt."
    if not learnt.shown:
        kept = "The policy that learning began with is kept."
    return f"{said}. {kept}"


def learnt_json(learnt: Learnt, *, folder: Path | None = None) -> str:
    """Everything about the outcome but the policies as strict JSON.

    Numbers that JSON does not have, NaN and the infinities, are null.

    Args:
        learnt: The outcome.
        folder: Where the policies are, if they were written.
    """
    content = {
        "folder": None if folder is None else str(folder),
        "shown": learnt.shown,
        "verdict": learnt.verdict,
        "comparison": None if learnt.comparison is None else asdict(learnt.comparison),
        "episodes": asdict(learnt.counts),
        "unfinished": learnt.unfinished._asdict(),
        "notes": learnt.notes,
        "epochs": [asdict(epoch) for epoch in learnt.progress],
    }
    return as_json(content)


def _print_comparison(compared: Comparison, console: Console) -> None:
    """Prints both policies' values and the difference, with their bounds."""
    estimates = {
        "behaviour": compared.behaviour,
        "learnt": compared.learnt,
        "improvement": compared.gain.estimate,
    }
    errors = [e.standard_error for e in estimates.values()]
    d = decimals_for(errors, [e.value for e in estimates.values()])
    level = percent(compared.level)
    rows = [
        (name, figure(e.value, d), error(e.standard_error, d), figure(e.low, d), figure(e.high, d))
        for name, e in estimates.items()
    ]
    heads = ("", "value", "SE", f"lower {level} bound", f"upper {level} bound")
    print_table(heads, rows, console)


def _sentences(learnt: Learnt) -> Iterator[str]:
    counts = learnt.counts
    yield (
        f"Learnt from {counted(counts.training, 'episode')} in "
        f"{counted(len(learnt.progress), 'epoch')}; {counts.validation:,} others chose among the "
        f"policies, and {counts.test:,} were kept for the test."
    )
    episodes, steps = learnt.unfinished
    if episodes:
        of_episodes = counts.training + counts.validation + counts.test + episodes
        yield f"{unfinished_note(episodes, steps, of_episodes)}."
    tested = [p.epoch for p in learnt.progress if p.best]
    if tested:
        yield f"What was tested is the policy of epoch {tested[-1]}."
    undone = sum(p.undone is not None for p in learnt.progress)
    if undone:
        yield f"{counted(undone, 'epoch')} went beyond the trust region and had to be undone."
    if learnt.comparison is not None:
        weights = learnt.comparison.gain.weights
        yield (
            f"The weights of the test episodes are worth {weights.effective_sample_size:,.0f} "
            f"episodes of the new policy ({weights.ess_share:.1%})."
        )
