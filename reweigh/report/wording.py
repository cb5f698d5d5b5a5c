"""Numbers, sentences, lists and small tables as a person reads them, and JSON."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Columns that sentences take at most: beyond it the eye loses the line."""
GAP = 2
"""Columns between figures."""
_MOST_DECIMALS, _LARGE = 6, 1e7
"""Beyond these, powers of ten are easier to read."""


def number(value: float) -> str:
    """A return, a weight or a count, as 1,408, 487.3 or 0.78: as many decimals as matter."""
    decimals = 1 if abs(value) >= 10 else 2
    text = f"{value:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def decimals_for(errors: Sequence[float], values: Sequence[float]) -> int:
    """How many decimals matter: two figures of the least error.

    Where there are no errors, four figures of the least value.
    """
    for scales in (errors, [abs(x) / 100 for x in values]):
        usable = [x for x in scales if 0 < x < math.inf]
        if usable:
            return min(max(1 - math.floor(math.log10(min(usable))), 0), _MOST_DECIMALS)
    return 2


def figure(value: float, decimals: int) -> str:
    """A value with so many decimals; - for NaN, and powers of ten where decimals fail."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return f"{value:g}"
    tiny = decimals == _MOST_DECIMALS and 0 < abs(value) < 100 * 10**-_MOST_DECIMALS
    if abs(value) >= _LARGE or tiny:
        return f"{value:.2e}"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def error(value: float, decimals: int) -> str:
    """A standard error as `figure` writes it, but never rounded to 0."""
    lost = 0 < value < 0.5 * 10**-decimals
    return f"{value:.1e}" if lost else figure(value, decimals)


def tail(k_hat: float) -> str:
    """k-hat, or "none" where the largest weights are too much alike, or too few, to fit a tail."""
    return "none" if k_hat == math.inf else figure(k_hat, 2)


def duration(seconds: float) -> str:
    """Seconds as 48 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def times(uses: float) -> str:
    """How many times, as in "each step was used 95 times"."""
    text = number(uses) if uses < 10 else f"{uses:,.0f}"
    return "once" if text == "1" else f"{text} times"


def counted(number: int, thing: str) -> str:
    """A number of things, as in "1,000 episodes" or "1 episode"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A level as 95% or 99.9%."""
    return f"{100 * share:.6g}%"


def unfinished_note(episodes: int, steps: int, of_episodes: int) -> str:
    """What was left out of a result because it has no end yet, without a full stop."""
    verbs = ("has", "is") if episodes == 1 else ("have", "are")
    return (
        f"{episodes:,} of {counted(of_episodes, 'episode')} ({counted(steps, 'step')}) "
        f"{verbs[0]} no end yet and {verbs[1]} left out"
    )


def callable_here(command: str) -> str:
    """A command as it can be called here: a program not on the PATH by where it is."""
    program, _, arguments = command.partition(" ")
    own = Path(sys.executable).with_name(program)
    if shutil.which(program) is None and own.exists():
        program = min(str(own), os.path.relpath(own), key=len)
    return f"{program} {arguments}"


def encodable(text: str, console: Console) -> str:
    """A text with a ? for what the console's encoding lacks."""
    if console.options.ascii_only:
        text = text.replace("±", "+/-")
    return text.encode(console.encoding, "replace").decode(console.encoding)


def print_plainly(text: str, console: Console) -> None:
    """Prints one line as it is: not wrapped, not coloured."""
    console.out(encodable(text, console), highlight=False)


def print_places(places: Iterable[tuple[str, str]], console: Console) -> None:
    """Prints names, and paths or commands that can be copied whole."""
    for name, place in places:
        print_plainly(f"  {name:<20} {place}", console)


def say(sentence: str, console: Console, style: str = "") -> None:
    """Prints sentences, at most as wide as reads well."""
    text = Text(encodable(sentence, console), style=style, overflow="fold")
    console.print(text, width=min(console.width, WIDEST), highlight=False)


def cells(texts: Iterable[str], console: Console) -> list[Text]:
    """Texts as they are, for the cells of a table."""
    return [Text(encodable(text, console)) for text in texts]


def print_list(heading: str, items: Iterable[tuple[str, str]], console: Console) -> None:
    """Prints a heading and marked items, if there are any."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for item in items:
        table.add_row(*cells(item, console))
    if table.row_count:
        say(heading, console)
        console.print(table, width=min(console.width, WIDEST))
        console.print()


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], console: Console) -> None:
    """Prints a table without lines, names at the left and figures at the right, and a gap."""
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if i else "left")
    for row in rows:
        table.add_row(*cells(row, console))
    console.print(table)
    console.print()


def as_json(content: Any) -> str:
    """Numbers, texts, sequences and mappings as strict JSON; a named tuple is a mapping.

    Numbers that JSON does not have, NaN and the infinities, are null.
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if (named := getattr(content, "_asdict", None)) is not None:
        content = named()
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
