"""The rules of the house, executable: floors, sizes, documentation, one list of everything."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import reweigh
import reweigh.data.importing
from reweigh import cli
from reweigh.lazy import imported

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "reweigh"
FILES = sorted(PACKAGE.rglob("*.py"))

# Imports go down only: a module may import what stands on its own line (its folder) or below.
FLOORS = [
    ["cli"],
    ["report"],
    ["learning"],
    ["train", "verify", "evaluation"],
    ["behaviour"],
    ["acting"],
    ["data"],
    ["recommendation"],
    ["recipes"],
    ["core"],
    ["contracts", "lazy"],
]
HEAVY = {"deltalake", "gymnasium", "matplotlib", "pyarrow", "rich", "tensorboard", "tyro"}


def place(module):
    """Return the part of a dotted name below `reweigh` that stands on a floor."""
    return module.split(".")[1] if module.count(".") else "reweigh"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (names if node.module == "reweigh" else [node.module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def floor(name):
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for module in imports(path):
        if module.startswith("reweigh."):
            there = place(module)
            assert there == here or floor(there) > floor(here), f"{path} imports {module}"
        elif here in ("core", "contracts", "recipes"):
            assert module.partition(".")[0] not in HEAVY, f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_in_the_head(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_golden_numbers_are_read_by_the_verification_alone():
    readers = {p.parent.name for p in FILES if "golden.json" in p.read_text()}
    assert readers <= {"verify"}


def test_the_public_face_is_documented_and_annotated():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                arguments = [*node.args.args, *node.args.kwonlyargs]
                bare = [a.arg for a in arguments if a.annotation is None]
                assert not bare, f"{path}: {node.name} leaves {bare} without annotation"


@pytest.mark.parametrize("package", [reweigh, reweigh.data, reweigh.data.importing])
def test_what_loads_lazily_is_what_type_checkers_see(package):
    tree = ast.parse(Path(package.__file__).read_text())
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    (table,) = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    # `from module import name` says the same as "module:name", and as "module.name" for a module.
    declared = {(a.name, f"{n.module}.{a.name}") for n in seen.body for a in n.names}  # type: ignore[attr-defined]
    assert declared == {(name, source.replace(":", ".")) for name, source in table.items()}
    for name, source in table.items():
        assert getattr(package, name) is imported(source)
        assert name in dir(package)
        # A module of the package, once imported, would stand in place of a function of its name.
        assert not (Path(package.__file__).parent / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_no_new_command_or_option_by_accident():
    """An option is a promise: think twice, then change this list."""
    assert set(cli.COMMANDS) == {
        *("train", "resume", "evaluate-run", "report", "verify"),
        *("import", "export", "inspect", "evaluate", "learn"),
    }
    from reweigh.train.config import TrainConfig

    assert list(TrainConfig.__dataclass_fields__) == [
        *("environment", "steps", "minutes", "threshold", "seed"),
        *("reuse", "iteration_steps", "first_steps", "environments", "memory"),
        *("epochs", "minibatches", "learning_rate", "clip", "max_kl", "min_ess"),
        *("discount", "trace_lambda", "entropy", "entropy_decay", "max_gradient_norm", "hidden"),
        "standardise",
        *("check_every", "evaluation_episodes", "threads"),
    ]


def test_every_option_has_a_help_text():
    source = (PACKAGE / "train" / "config.py").read_text()
    (config,) = [n for n in ast.parse(source).body if isinstance(n, ast.ClassDef)]
    for field, following in zip(config.body, config.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(following, ast.Expr), f"{ast.unparse(field)} has no help text"


def test_every_mutation_still_changes_something():
    for path in sorted((ROOT / "tests" / "mutations").glob("*.py")):
        for file, old, new in runpy.run_path(str(path))["MUTATIONS"]:
            assert old in (PACKAGE / file).read_text() and old != new, f"{path.name}: {old!r}"


def test_the_repository_speaks_of_itself_alone():
    for path in [*FILES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        found = re.search(r"/work/|/tmp/|/root/|\bsession\b|workplace", path.read_text())
        assert not found, f"{path}: {found}"
