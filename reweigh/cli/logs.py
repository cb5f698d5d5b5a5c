"""Commands around a log: what it holds, what a policy is worth, and a better policy."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from reweigh.cli.folders import next_free, open_log
from reweigh.cli.names import known_names
from reweigh.learning.config import LearnConfig

if TYPE_CHECKING:
    from reweigh.evaluation.intervals import ConfidenceInterval

NOT_SHOWN = 3
"""Exit status of `learn` where no improvement is shown."""
INTERRUPTED = 130

LEARN_DEFAULTS = LearnConfig()

IntervalName = Literal[
    "normal",
    "student_t",
    "bootstrap",
    "bias_corrected_bootstrap",
    "hoeffding",
    "empirical_bernstein",
]
"""Functions of `evaluation.intervals`."""
CONCENTRATION = ("hoeffding", "empirical_bernstein")
"""Intervals that hold for every sample, of returns whose range is known."""
OF_KNOWN_RANGE = ("behaviour", "truncated_importance_sampling")
"""Methods whose terms have a range that is known before the log is seen."""


def inspect(
    log: Positional[Path],
    policy: str | None = None,
    version: int | None = None,
    json: bool = False,
) -> int:
    """Says what a log holds, what it lacks, and how old its steps are to a policy.

    Args:
        log: Folder of the log, or of the run that has it.
        policy: Folder of a run or of policies, or module:name of one in Python.
        version: Which of the folder's policies; the newest by default.
        json: Print JSON instead of tables.
    """
    from rich.console import Console

    from reweigh.acting.stored import load_policy
    from reweigh.evaluation.inspection import inspection
    from reweigh.report.inspection import inspection_json, print_inspection

    if version is not None and policy is None:
        raise ValueError(f"version is {version}, but no --policy was given to take it from")
    opened = open_log(log)
    target = None if policy is None else load_policy(policy, version)
    with Console(stderr=True).status("Reading the log"):
        inspected = inspection(opened, target)
    if json:
        print(inspection_json(inspected))
    else:
        print_inspection(inspected, Console(), log=str(log))
    return 0


def evaluate(
    log: Positional[Path],
    policy: Positional[str],
    version: int | None = None,
    discount: float = 1.0,
    method: tuple[str, ...] = (),
    interval: IntervalName = "student_t",
    level: float = 0.95,
    return_range: tuple[float, float] | None = None,
    maximum_weight: float = 10.0,
    page: Path | None = None,
    json: bool = False,
) -> int:
    """Says what a policy is worth, from logged episodes of other policies alone.

    Args:
        log: Folder of the log, or of the run that has it.
        policy: Folder of a run or of policies, or module:name of one in Python.
        version: Which of the folder's policies; the newest by default.
        discount: Discount per step.
        method: Estimators to ask, such as per_decision; by default all that apply.
        interval: How confidence intervals are made.
        level: Their level.
        return_range: Lowest and highest return possible; hoeffding and empirical_bernstein need it.
        maximum_weight: Where `truncated_importance_sampling` cuts trajectory weights.
        page: Also write a page with pictures to this file.
        json: Print JSON instead of a table.
    """
    from rich.console import Console

    from reweigh.acting.stored import load_policy
    from reweigh.evaluation.evaluate import all_methods, default_methods
    from reweigh.evaluation.evaluate import evaluate as evaluate_policy
    from reweigh.recipes.values import truncated_importance_sampling
    from reweigh.report.evaluation_page import write_evaluation_page
    from reweigh.report.evaluation_table import evaluation_json, print_evaluation

    made = _interval(interval, return_range)
    opened = open_log(log)
    target = load_policy(policy, version)
    if page is not None:
        _require_writable(page)
    lowest_return = return_range[0] if return_range is not None else 0.0
    bound = truncated_importance_sampling.bind(maximum=maximum_weight, lowest_return=lowest_return)
    methods = {**(all_methods if method else default_methods)(opened), bound.name: bound}
    if interval in CONCENTRATION:
        methods = {name: methods[name] for name in OF_KNOWN_RANGE}
    names = known_names(method, methods, "a method for this log and interval")
    asked = {name: methods[name] for name in names or methods}
    with Console(stderr=True).status(f"Asking {len(asked)} methods"):
        evaluation = evaluate_policy(
            opened, target, discount=discount, methods=asked, interval=made, level=level
        )
    for name in names:
        evaluation[name]  # refused if it was asked for and does not apply
    if page is not None:
        write_evaluation_page(evaluation, page, policy=policy, log=str(log))
    if json:
        print(evaluation_json(evaluation))
    else:
        print_evaluation(evaluation, Console())
    return 0


def learn(
    log: Positional[Path],
    config: OmitArgPrefixes[LearnConfig] = LEARN_DEFAULTS,
    behaviour: str | None = None,
    version: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Improves a policy from a log alone, and tests on episodes kept for it that it is better.

    The exit status is 0 if an improvement is shown, and 3 if none is: the behaviour is then kept.

    Args:
        log: Folder of the log, or of the run that has it.
        config: How.
        behaviour: The policy that sampled the log, or the oldest of several: folder of a run or of
            policies, or module:name in Python; by default it is estimated from the log.
        version: Which of the folder's policies, if it holds several.
        out: Folder of the result; by default the next free one under runs/.
        json: Print JSON instead of the display.
    """
    try:
        return _learn(log, config, behaviour, version, out, json)
    except KeyboardInterrupt:
        print("reweigh: interrupted; nothing was kept", file=sys.stderr)
        return INTERRUPTED


def _learn(
    log: Path,
    config: LearnConfig,
    behaviour: str | None,
    version: int | None,
    out: Path | None,
    json: bool,
) -> int:
    from rich.console import Console

    from reweigh.learning.folder import described_policy, learning_in
    from reweigh.report.learning_display import LearningDisplay
    from reweigh.report.learning_summary import learnt_json, print_learnt

    opened = open_log(log)
    if version is not None and behaviour is None:
        raise ValueError(f"version is {version}, but no --behaviour was given to take it from")
    policy, description = (
        (None, None) if behaviour is None else described_policy(behaviour, version)
    )
    folder = out or next_free(Path("runs"), f"{opened.schema.environment}-learnt")
    steps = learning_in(folder, opened, policy, config=config, description=description)
    console = Console(stderr=json)
    with closing(steps), LearningDisplay(config, console, log=str(log)) as display:
        learnt = display.watch(steps)
    if json:
        print(learnt_json(learnt, folder=folder))
    else:
        print_learnt(learnt, console, places=[("policies", str(folder / "policies"))])
    return 0 if learnt.shown else NOT_SHOWN


def _require_writable(page: Path) -> None:
    """Requires a path that a file can be written to, and makes its folder."""
    if page.is_dir():
        raise ValueError(f"{page} is a folder; give the page a name, such as {page}/page.html")
    page.parent.mkdir(parents=True, exist_ok=True)


def _interval(name: IntervalName, return_range: tuple[float, float] | None) -> "ConfidenceInterval":
    from reweigh.evaluation import intervals

    function = getattr(intervals, name)
    if name not in CONCENTRATION:
        return function
    if return_range is None:
        raise ValueError(
            f"{name} holds for returns of a known range: give --return-range LOW HIGH, which no "
            "policy's return can leave"
        )
    return intervals.of_returns(function, lowest=return_range[0], highest=return_range[1])
