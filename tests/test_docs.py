"""What README and docs show runs: Python blocks as they stand, commands as far as their options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reweigh import cli
from reweigh.acting.collect import Collector
from reweigh.acting.environments import Slot, make_vector
from reweigh.data.log import TrajectoryLog
from reweigh.train.config import TrainConfig
from reweigh.train.loop import train
from reweigh.train.start import collect_here, new_run

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def folder_with_a_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    config = TrainConfig(environment="CartPole-v1", steps=256, epochs=1, evaluation_episodes=0)
    run = new_run(folder / "runs" / "CartPole-v1-1", config)
    for _ in train(run, collect_here(run)):
        pass
    # Beside it a log of whole episodes that its first policy sampled.
    policy = run.load_policy(0)
    slots = [Slot(i) for i in range(8)]
    environments = make_vector("CartPole-v1", seed=1, slots=slots)
    sampled = Collector(environments, 1).collect(policy, version=0, steps=4000).trajectories
    whole = sampled.select(sampled.terminated | sampled.truncated)
    TrajectoryLog.create(folder / "logs" / "CartPole-v1", run.log.schema).append(whole)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page, folder_with_a_run, monkeypatch):
    monkeypatch.chdir(folder_with_a_run)
    code = "\n".join(blocks(page, "python"))
    exec(compile(code, page.name, "exec"), {})


def commands():
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield pytest.param(words, id=" ".join(words))


@pytest.mark.parametrize("words", list(commands()))
def test_commands_exist_with_their_options(words):
    program, *arguments = words
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "reweigh":
        command, *rest = arguments
        assert command in cli.COMMANDS
        shown = subprocess.run(
            [sys.executable, "-c", "from reweigh.cli import main; main()", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert all(option in shown.stdout for option in rest if option.startswith("--"))
    elif program == "python":
        assert (ROOT / arguments[0]).exists()
    else:
        assert program in ("source", "pip")


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
