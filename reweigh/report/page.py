"""Pages that need nothing beside themselves, made of the templates in this folder."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reweigh.data.files import write_whole
from reweigh.report import svg, wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Paint = Callable[["Axes"], None]
"""Paints a chart on the axes it is given."""

WIDE = (960, 400)
"""Width and height of a page's first chart, on a screen that is wide enough."""
NARROW = (380, 330)
"""The same on a telephone."""
SMALL = (360, 220)
"""Width and height of the charts beside each other."""


class Headline(NamedTuple):
    """The chart that a page begins with, drawn for wide screens and for narrow ones."""

    label: str
    """What it shows, for those who cannot see it."""
    wide: Paint
    narrow: Paint
    heights: tuple[float, float] = (WIDE[1], NARROW[1])


def write_page(
    path: Path,
    template: str,
    *,
    headline: Headline,
    charts: Mapping[str, Paint],
    numbers: Mapping[str, str],
    **values: Any,
) -> None:
    """Writes a page as one HTML file.

    Args:
        path: The file; its folder exists.
        template: Name of a file in templates/ that extends page.html.
        headline: The first chart.
        charts: The other charts, by the headings that the template has for them.
        numbers: The figures below the first chart, by what they are.
        values: What else the template writes: `title`, `kicker`, `outcome`, `footer`, ...

    Raises:
        OSError: The file cannot be written.
    """

    def draw(heading: str, reading: str) -> Markup:
        name = heading.lower().replace(" ", "-")
        return _drawn(charts[heading], name, f"{heading}. {reading}", SMALL)

    sizes = zip((WIDE[0], NARROW[0]), headline.heights, strict=True)
    wide, narrow = (
        _drawn(paint, name, headline.label, size)
        for paint, name, size in zip(headline[1:3], ("wide", "narrow"), sizes, strict=True)
    )
    page = (
        _templates()
        .get_template(template)
        .render(
            headline={"wide": wide, "narrow": narrow},
            draw=draw,
            numbers=numbers,
            colours=Markup(svg.colour_variables()),
            font=Markup(svg.FONT),
            number=wording.number,
            percent=wording.percent,
            **values,
        )
    )
    write_whole(path, page.encode())


def _drawn(paint: Paint, name: str, label: str, size: tuple[float, float]) -> Markup:
    return Markup(svg.draw(paint, name=name, label=label, width=size[0], height=size[1]))


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("reweigh.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
