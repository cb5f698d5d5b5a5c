"""Consoles as tests read them: a terminal that keeps what it is sent, and a pipe."""

import io
import re

from rich.console import Console


class Terminal(io.TextIOWrapper):
    """A terminal that keeps what it is sent."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True, newline="")

    def isatty(self):
        return True

    def sent(self):
        return self.buffer.getvalue().decode(self.encoding)

    def console(self, width=80, **environment):
        environment = {"TERM": "xterm", **environment}
        return Console(file=self, width=width, height=24, force_terminal=True, _environ=environment)

    def screen(self):
        """What is left to see: the last redrawing, without its control codes."""
        last = self.sent().rpartition("\x1b[2K")[2]
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).replace("\r", "")


def printed(write, width=None, encoding="utf-8", **environment):
    """What `write(console)` sends where there is no terminal."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True, newline="")
    write(Console(file=file, width=width, _environ=environment))
    return raw.getvalue().decode(encoding)


def words(text):
    return " ".join(text.split())
