"""What pages are made of: HTML that needs nothing beside itself."""

from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from reweigh.report import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = (960, 400)
"""Width and height of a page's first chart, on a screen that is wide enough."""
NARROW = (380, 330)
"""The same on a telephone."""
SMALL = (360, 220)
"""Width and height of the charts beside each other."""


def document(title: str, *contents: str, footer: str) -> str:
    """Return a whole page as HTML.

    Args:
        title: Of the window, as text.
        contents: What stands on it from top to bottom, as HTML.
        footer: The last line, as text.
    """
    body = "\n".join(contents)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · reweigh</title>
<style>
{svg.colour_variables()}
body{{font-family:{svg.FONT}}}
{files("reweigh.report").joinpath("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""


def header(kicker: str, heading: str, outcome: str) -> str:
    """Return the head of a page: where it is from, what it is about, what came out."""
    return f"""<header>
<p class="kicker">{escape(kicker)}</p>
<h1>{escape(heading)}</h1>
<p class="outcome">{escape(outcome)}</p>
</header>"""


def headline(wide: str, narrow: str, caption: str) -> str:
    """Return the chart that a page begins with, drawn for wide screens and for narrow ones."""
    return f"""<figure class="headline">
<div class="wide">{wide}</div>
<div class="narrow">{narrow}</div>
<figcaption>{escape(caption)}</figcaption>
</figure>"""


def section(heading: str, introduction: str, *charts: str) -> str:
    """Return charts side by side under a heading."""
    body = "\n".join(charts)
    return (
        f"<section>\n<h2>{escape(heading)}</h2>\n<p>{escape(introduction)}</p>\n"
        f'<div class="charts">\n{body}\n</div>\n</section>'
    )


def chart(heading: str, advice: str, reading: str, paint: Callable[["Axes"], None]) -> str:
    """Return a chart under its heading; `reading` is what it shows, `advice` what to look for."""
    drawn = svg.draw(
        paint,
        name=heading.lower().replace(" ", "-"),
        label=f"{heading}. {reading}",
        width=SMALL[0],
        height=SMALL[1],
    )
    return (
        f"<figure>\n<h3>{escape(heading)}</h3>\n{drawn}\n"
        f"<figcaption>{escape(advice)} {escape(reading)}</figcaption>\n</figure>"
    )


def definitions(name: str, values: Mapping[str, Any]) -> str:
    """Return a list of terms and their values, laid out as the CSS class of that name."""
    rows = "\n".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(str(value))}</dd></div>"
        for term, value in values.items()
    )
    return f'<dl class="{name}">\n{rows}\n</dl>'
