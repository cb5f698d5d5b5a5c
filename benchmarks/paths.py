"""How much of the package each job enters: files and functions, by folder, and the package's size.

    python benchmarks/paths.py                     # two minutes; a table in Markdown
    PYTHONPATH=OTHER python benchmarks/paths.py    # of another checkout

The jobs are commands, and one call of a loop of one's own. Each runs in a process of its own, in an
empty folder, after every module of the package has been imported; what is counted is each function
that the interpreter enters in any thread of this process, once. Lambdas count, comprehensions do
not. What the workers of `evaluate` enter in other processes is not counted.
"""

import argparse
import ast
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import reweigh as rw

PACKAGE = Path(rw.__file__).parent

POLICIES = """
import torch
from torch.distributions import Categorical


class Table(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, observations):
        return Categorical(logits=self.logits[observations.long()])


behaviour = Table([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
target = Table([[0.2, 0.0], [0.0, 0.3], [0.1, 0.0]])
"""

LEARN = "learn log --behaviour table:behaviour --epochs 3 --discount 0.99"
EVALUATE = "evaluate log table:target --discount 0.99"
JOBS: dict[str, str] = {
    "train CartPole-v1, 1,500 steps": "train CartPole-v1 --steps 1500",
    "evaluate, all methods": EVALUATE,
    "evaluate, weighted per decision": f"{EVALUATE} --method weighted-per-decision",
    "learn, 3 epochs, behaviour given": LEARN,
    "import a CSV of 200 rows": "import short.csv imported",
    "per_decision in a loop of one's own": "",
}
"""By name, the arguments of `reweigh`; none for the call of a recipe."""


def write_inputs(folder: Path) -> None:
    """Writes CSVs of 200 and of 2,000 rows, and a module with two policies, into the folder."""
    for name, episodes in (("short.csv", 50), ("long.csv", 500)):
        lines = ["episode,step,state,action,reward,log_prob,terminated"]
        for e in range(episodes):
            # Actions in an order that depends on neither the state nor the last action.
            lines += [
                f"{e},{t},{(e + t) % 3},{(e * e + 3 * t + e * t) % 5 % 2},{(e + 2 * t) % 7},"
                f"-0.6931471805599453,{int(t == 3)}"
                for t in range(4)
            ]
        (folder / name).write_text("\n".join(lines))
    (folder / "table.py").write_text(POLICIES)


def call_recipe() -> None:
    """One gradient by per-decision importance sampling, of five steps in two episodes."""
    import torch

    segments = rw.Segments.packed([3, 2])
    target = torch.full((5,), -0.5, requires_grad=True)
    behaviour, rewards = torch.full((5,), -0.7), torch.ones(5)
    if hasattr(rw, "Sample"):
        sample = rw.Sample(target, behaviour, segments, rewards, 0.99)
        loss = rw.recipes.per_decision(sample)
    else:  # versions in which recipes take tensors
        recipe: Any = rw.recipes.per_decision
        loss = recipe(target, behaviour, rewards, segments, discount=0.99)
    loss.backward()


def run_command(arguments: str) -> None:
    """Runs `reweigh` with the arguments, in this process.

    Raises:
        RuntimeError: The command fails; 3 is the status of a policy that is not shown to be better.
    """
    from reweigh.cli import main

    sys.argv = ["reweigh", *arguments.split()]
    try:
        main()
    except SystemExit as status:
        if status.code not in (None, 0, 3):
            raise RuntimeError(f"reweigh {arguments}: exit status {status.code}") from None


def entered(job: Callable[[], None]) -> set[CodeType]:
    """The functions of the package that a job enters."""
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            codes.add(frame.f_code)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        job()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    root = str(PACKAGE) + os.sep
    comprehensions = {"<module>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}
    return {
        code
        for code in codes
        if code.co_filename.startswith(root) and code.co_name not in comprehensions
    }


def measure(name: str, folder: Path) -> None:
    """Prints as JSON the files that a job enters and in each the number of functions."""
    for module in pkgutil.walk_packages(rw.__path__, "reweigh."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    os.chdir(folder)
    write_inputs(folder)
    arguments = JOBS[name]
    if " log " in arguments:
        run_command("import long.csv log")
    codes = entered(lambda: run_command(arguments) if arguments else call_recipe())
    files: dict[str, int] = {}
    for code in codes:
        file = str(Path(code.co_filename).relative_to(PACKAGE))
        files[file] = files.get(file, 0) + 1
    print("\n" + json.dumps(files))


def lines_of(folder: Path) -> int:
    """Lines of the Python files in a folder and those below it."""
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def public_names() -> tuple[int, int]:
    """Names that `reweigh` exports itself, and those of the modules that it exports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    exported = [getattr(rw, name) for name in names]
    modules = [x for x in exported if isinstance(x, ModuleType)]
    members = [
        name
        for module in modules
        for name, member in vars(module).items()
        if not name.startswith("_")
        and not isinstance(member, ModuleType)
        and (getattr(member, "__module__", None) or type(member).__module__).startswith("reweigh")
    ]
    return len(names) - len(modules), len(members)


def folder_of(file: str) -> str:
    """The folder of the package that a file belongs to; the file itself at the top."""
    return file.split("/")[0] if "/" in file else file


def main() -> None:
    """Prints the table of the jobs, and the figures of the package."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    job = parser.parse_args().job
    if job:
        with tempfile.TemporaryDirectory() as folder:
            measure(job, Path(folder))
        return
    for name in JOBS:
        command = [sys.executable, __file__, "--job", name]
        # Without a terminal: a display that asks for one would stop a job in the background.
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if run.returncode:
            sys.exit(f"{name}: {run.stderr}")
        files: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
        print(f"**{name}**: {len(files)} files, {sum(files.values())} functions\n")
        print("| folder | files | functions |\n|---|---|---|")
        for folder in sorted({folder_of(file) for file in files}):
            counts = [count for file, count in files.items() if folder_of(file) == folder]
            print(f"| {folder} | {len(counts)} | {sum(counts)} |")
        print(flush=True)
    top, inside = public_names()
    tests = PACKAGE.parent / "tests"
    print(f"package: {lines_of(PACKAGE):,} lines in {len(list(PACKAGE.rglob('*.py')))} files")
    print(f"tests: {lines_of(tests):,} lines in {len(list(tests.rglob('*.py')))} files")
    print(f"public names: {top} of reweigh itself, {inside} of the modules that it exports")


if __name__ == "__main__":
    main()
