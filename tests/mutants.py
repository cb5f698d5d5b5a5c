"""Breaks the package on purpose, one change at a time, and sees whether the tests notice.

    python tests/mutants.py            # all; or: python tests/mutants.py weights train

A file of `tests/mutations` lists changes `(file, old, new)` and what must notice them: `TESTS`,
files of tests, or `COMMAND`, arguments of Python whose exit status says so. Each mutant is a copy
of the package with one text replaced. One that survives is a hole in the tests: the exit status
is 1.
"""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LISTS = {path.stem: path for path in sorted((ROOT / "tests" / "mutations").glob("*.py"))}


def survives(file: str, old: str, new: str, command: list[str], folder: Path) -> bool:
    """Whether the command succeeds although `old` reads `new` in the copy of the package.

    A traceback of `reweigh` shows no figure that is wrong: a command that ends so noticed nothing.
    """
    path = folder / "reweigh" / file
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{file} no longer contains {old!r}: bring the list of mutants up to date")
    path.write_text(text.replace(old, new, 1))
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder / "tests",
        env=environment,
        capture_output=True,
        text=True,
    )
    path.write_text(text)
    return done.returncode == 0 or "Traceback" in done.stderr


def pytest_command(tests: list[str], folder: Path) -> list[str]:
    """Arguments of Python that run the files of tests, by name or pattern."""
    names = [
        str(file.relative_to(folder / "tests")) if file else given
        for given in tests
        for file in (sorted((folder / "tests").glob(given)) or [None])
    ]
    return ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names]


def main(*chosen: str) -> int:
    """Runs the mutants of the lists named, or all; reports survivors, returns the exit status."""
    survivors, count = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "reweigh", folder / "reweigh")
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(ROOT / "tests", folder / "tests")
        for title in chosen or LISTS:
            content = runpy.run_path(str(LISTS[title]))
            mutations = content["MUTATIONS"]
            command = content.get("COMMAND") or pytest_command(content["TESTS"], folder)
            if not survives(mutations[0][0], "", "", command, folder):
                print(f"{title}: its tests fail without any mutation: mend them first")
                return 1
            for number, (file, old, new) in enumerate(mutations, start=1):
                alive = survives(file, old, new, command, folder)
                verdict = "SURVIVES" if alive else "killed"
                print(f"{title} {number:2}/{len(mutations)} {verdict}  {file}: {old!r}", flush=True)
                survivors += [(file, old, new)] if alive else []
            count += len(mutations)
    print(f"{count - len(survivors)} of {count} killed")
    for file, old, new in survivors:
        print(f"survivor: {file}: {old!r} -> {new!r}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
