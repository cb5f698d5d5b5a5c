"""What README and docs show runs for someone who follows a page from the top, in an empty folder.

Python blocks run as they stand, in one session a page. Commands run too, `make train` as the one
that it calls; training stops early. What takes minutes or other packages is only checked to exist.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from reweigh import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BRIEFLY = {
    "train": ("--steps", "400", "--epochs", "2", "--evaluation-episodes", "0"),
    "learn": ("--epochs", "2"),
    "evaluate-run": ("--episodes", "2"),
}
"""Options that are put behind a command so that it takes seconds."""
NOT_SHOWN = 3  # `learn` says that no improvement is shown


def blocks(page):
    """The Python and console blocks of a page, in order."""
    return re.findall(r"^```(python|console)\n(.*?)^```", page.read_text(), re.M | re.S)


def run_command(line, monkeypatch):
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        makefile = (ROOT / "Makefile").read_text()
        assert f"\n{words[1]}:" in makefile
        words = ["reweigh", "train", "CartPole-v1"] if words[1] == "train" else []
    if words[:1] == ["python"]:
        assert (ROOT / words[1]).exists()
    elif words[:1] == ["reweigh"]:
        arguments = [*words[1:], *BRIEFLY.get(words[1], ())]
        monkeypatch.setattr(sys, "argv", ["reweigh", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code in (0, None, NOT_SHOWN), line
    else:
        assert not words or words[0] in ("source", "pip"), line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_page_runs_from_the_top(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session, threads = {"__name__": "page"}, torch.get_num_threads()
    for number, (language, block) in enumerate(blocks(page)):
        if language == "python":
            exec(compile(block, f"{page.name}, block {number}", "exec"), session)
        else:
            for line in block.splitlines():
                run_command(line, monkeypatch)
    torch.set_num_threads(threads)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
