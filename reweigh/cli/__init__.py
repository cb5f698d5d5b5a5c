"""The command `reweigh`. A user's mistake is one line and exit code 2; ours is a traceback.

Neither the overview of the commands nor the help of one of them imports PyTorch: what computes is
imported inside the functions.
"""

import sys
import warnings
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, NoReturn

import reweigh
from reweigh.lazy import imported


class Command(NamedTuple):
    """A command of the overview."""

    source: str
    """Its function, as `module:name`."""
    summary: str
    """What it does, in the overview."""


COMMANDS = {
    "train": Command("reweigh.cli.runs:train", "train a policy in an environment, reusing steps"),
    "resume": Command("reweigh.cli.runs:resume", "go on with a run where it stopped"),
    "evaluate-run": Command("reweigh.cli.runs:evaluate_run", "play a run's policy"),
    "report": Command("reweigh.cli.runs:report", "write the page of a run again"),
    "import": Command("reweigh.cli.sources:import_", "make a log of what others recorded"),
    "export": Command("reweigh.cli.sources:export", "write a log as Parquet or a Minari dataset"),
    "inspect": Command("reweigh.cli.logs:inspect", "say what is in a log, and how old it is"),
    "evaluate": Command("reweigh.cli.logs:evaluate", "say what a policy is worth, from a log"),
    "learn": Command("reweigh.cli.logs:learn", "improve a policy from a log, and test that"),
    "verify": Command("reweigh.cli.runs:verify", "prove the estimators on this machine"),
}


def main() -> None:
    """Runs the command line."""
    sys.path.insert(0, str(Path.cwd()))  # so that `module:id` finds a module beside the user
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    match sys.argv[1:]:
        case [] | ["-h" | "--help", *_]:
            print(overview())
            sys.exit(0 if sys.argv[1:] else 2)
        case ["--version", *_]:
            print(f"reweigh {version('reweigh')}")
            sys.exit(0)
        case [name, *_] if name not in COMMANDS:
            (guess, *_) = (*get_close_matches(name, COMMANDS), "--help")
            _exit(2, f"there is no command {name!r}; try `reweigh {guess}`")
    try:
        sys.exit(_run(*sys.argv[1:]))
    except ValueError as error:
        _exit(2, error)
    except KeyboardInterrupt:
        _exit(130, "interrupted; a run goes on by `reweigh resume RUN`")
    except OSError as error:
        _exit(1, error)


def overview() -> str:
    """What `reweigh --help` prints."""
    lines = (f"  {name:<14}{command.summary}" for name, command in COMMANDS.items())
    return "\n".join(
        [
            "usage: reweigh COMMAND ...",
            "",
            (reweigh.__doc__ or "").partition("\n")[0],
            "",
            *lines,
            "",
            "`reweigh COMMAND --help` lists a command's options, `reweigh --version` the version.",
        ]
    )


def _run(name: str, *arguments: str) -> int:
    """Runs a command, and returns its exit status."""
    import tyro

    from reweigh.cli.names import either_spelling

    with either_spelling():
        return tyro.cli(
            imported(COMMANDS[name].source), prog=f"reweigh {name}", args=list(arguments)
        )


def _exit(status: int, error: Exception | str) -> NoReturn:
    print("reweigh: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(status)
