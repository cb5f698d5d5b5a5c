"""Every test runs with one thread: small tensors are fastest so, and sums come out alike."""

import sys

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def reweigh(monkeypatch, capfd, tmp_path):
    """Run the command in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    from reweigh import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reweigh", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run
