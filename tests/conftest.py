"""Every test runs with one thread: small tensors are fastest so, and sums come out alike."""

import signal
import sys

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def reweigh(monkeypatch, capfd, tmp_path):
    """Run the command in an empty folder; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    # A shell starts what it runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    from reweigh import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reweigh", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    yield run
    signal.signal(signal.SIGINT, before)
