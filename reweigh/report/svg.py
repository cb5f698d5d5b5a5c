"""Drawing with matplotlib for a page: SVG whose colours and type follow the page around it."""

import io
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SURFACE = "#ffffff"
INK = "#1f2328"
MUTED = "#656d76"
GRID = "#d8dee4"
ACCENT = "#0b62c4"
CONTRAST = "#c2570c"
THIRD = "#7a4fa3"

COLOURS = {
    "ink": (INK, "#e6edf3"),
    "muted": (MUTED, "#9aa4af"),
    "grid": (GRID, "#30363d"),
    "accent": (ACCENT, "#6cb0ff"),
    "contrast": (CONTRAST, "#ff9f4a"),
    "third": (THIRD, "#c9a4f0"),
    "surface": (SURFACE, "#0d1117"),
}
"""Each colour by its CSS name, on a light ground and on a dark one; apart for the colour-blind."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), MUTED),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color"), GRID),
    **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left")), False),
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.linewidth": 0.7,
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), "medium"),
    "ytick.left": False,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def colour_variables() -> str:
    """The CSS that gives each colour its value in light and in dark surroundings."""
    light, dark = (
        "".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in range(2)
    )
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def draw(
    paint: Callable[["Axes"], None], *, name: str, label: str, width: float, height: float
) -> str:
    """One chart as an `<svg>` element to stand in a page.

    Args:
        paint: Draws on the axes it is given.
        name: Sets the chart's ids apart from those of other charts in the page.
        label: What the chart shows, for those who cannot see it.
        width: In CSS pixels, at the size that the chart is designed for; the page may scale it.
        height: In CSS pixels.
    """
    import matplotlib as mpl  # half a second to import
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    written = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        # matplotlib writes SVG at 72 units an inch; a unit becomes a CSS pixel.
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        # Without these four nothing of the day, the library or a schema's address is written.
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    return _adopt(written.getvalue(), name, label, width, height)


def _adopt(svg: str, name: str, label: str, width: float, height: float) -> str:
    """The drawing without what only a file of its own needs, its colours left to the page."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    changes = {light: f"var(--{css_name})" for css_name, (light, _) in COLOURS.items()}
    changes |= {
        ' id="': f' id="{name}-',
        "url(#": f"url(#{name}-",
        'xlink:href="#': f'href="#{name}-',
    }
    for old, new in changes.items():
        body = body.replace(old, new)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{body}'


def standalone(svg: str, *, width: float, height: float) -> str:
    """A chart as a file of its own: with colours and type, on a ground that suits them."""
    margin = 16
    style = f"{colour_variables()}text{{font-family:{FONT}!important}}"
    inset = svg.replace(
        "<svg", f'<svg x="{margin}" y="{margin}" width="{width:g}" height="{height:g}"', 1
    )
    width, height = width + 2 * margin, height + 2 * margin
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}"><style>{style}</style>'
        f'<rect width="100%" height="100%" rx="8" style="fill:var(--surface)"/>{inset}</svg>\n'
    )
