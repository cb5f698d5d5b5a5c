"""Numbers, durations and lines as a person reads them."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console


def number(value: float) -> str:
    """Write a return, a weight or a count: 1,408, 487.3, 0.78; as many decimals as matter."""
    decimals = 1 if abs(value) >= 10 else 2
    text = f"{value:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def duration(seconds: float) -> str:
    """Write seconds as 48 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def times(uses: float) -> str:
    """Write how many times, as in "each step was used 95 times"."""
    text = number(uses) if uses < 10 else f"{uses:,.0f}"
    return "once" if text == "1" else f"{text} times"


def counted(number: int, thing: str) -> str:
    """Write a number of things, as in "1,000 episodes" or "1 episode"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Write a level as 95% or 99.9%."""
    return f"{100 * share:.6g}%"


def callable_here(command: str) -> str:
    """Write a command as it can be called here: a program not on the PATH by where it is."""
    program, _, arguments = command.partition(" ")
    own = Path(sys.executable).with_name(program)
    if shutil.which(program) is None and own.exists():
        program = min(str(own), os.path.relpath(own), key=len)
    return f"{program} {arguments}"


def print_plainly(text: str, console: Console) -> None:
    """Print one line as it is: not wrapped, not coloured, what cannot be encoded as a ?."""
    console.out(encodable(text, console), highlight=False)


def encodable(text: str, console: Console) -> str:
    """Replace what the console's encoding lacks."""
    if console.options.ascii_only:
        text = text.replace("±", "+/-")
    return text.encode(console.encoding, "replace").decode(console.encoding)
