"""The command `reweigh`. A user's mistake is one line and exit code 2; ours is a traceback."""

import sys
import warnings
from pathlib import Path

import tyro

from reweigh.cli import logs, runs, sources

COMMANDS = {
    "train": runs.train,
    "resume": runs.resume,
    "evaluate-run": runs.evaluate_run,
    "report": runs.report,
    "verify": runs.verify,
    "import": sources.import_,
    "export": sources.export,
    "evaluate": logs.evaluate,
    "learn": logs.learn,
}


def main() -> None:
    """Run the command line."""
    sys.path.insert(0, str(Path.cwd()))  # so that `module:id` finds a module beside the user
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        sys.exit(tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="reweigh"))
    except ValueError as error:
        _say(error)
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted; a run goes on by `reweigh resume RUN`")
        sys.exit(130)
    except OSError as error:
        _say(error)
        sys.exit(1)


def _say(error: Exception | str) -> None:
    print("reweigh: " + " ".join(str(error).split()), file=sys.stderr)
