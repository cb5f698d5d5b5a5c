"""Pages as tests read them: strictly, and by a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from reweigh.report.svg import ACCENT, CONTRAST

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order, every id once."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.elements, self.texts = [], [], [], []
        self.terms = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self._element(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self._element(tag, attributes)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> in {self.open}"

    def handle_data(self, data):
        text = " ".join(data.split())
        if text:
            self.texts.append(text)
        if self.open[-1:] == ["dd"]:
            self.terms[self.texts[-2]] = text

    def _element(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def all(self, tag):
        return [attributes for element, attributes in self.elements if element == tag]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def chromium(profile, *arguments):
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-background-networking", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={profile}", *arguments,
        ],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip


def require_self_contained(text):
    """Requires a page that needs nothing beside itself: no address, no script, no broken link."""
    page = Page(text)
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", text)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert len(page.ids) == len(set(page.ids))
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    assert {a or b for a, b in referred} <= set(page.ids)


def require_dark_side(text, *, until):
    """Requires drawings whose colours follow the system, up to the given text."""
    assert "@media(prefers-color-scheme:dark){:root{" in text
    drawings = text[text.index("<svg") : text.index(until)]
    assert "var(--accent)" in drawings
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) == set()


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def require_seen_in_chromium(text, folder):
    """Requires a page that a browser shows without a complaint, with both colours in its chart."""
    page, picture = folder / "page.html", folder / "page.png"
    page.write_text(text, encoding="utf-8")
    window = ("--window-size=1200,2400", f"--screenshot={picture}")
    shown = chromium(folder / "profile", *window, page.as_uri())
    assert "CONSOLE" not in shown.stderr
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (2400, 1200, 3)
    for colour in (ACCENT, CONTRAST):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        headline = pixels[200:700]
        assert (np.abs(headline - rgb).max(axis=-1) < 0.02).sum() > 300, colour


def layout_in_chromium(text, folder, widths):
    """How wide a page scrolls in frames of the given widths, and which first chart each shows."""
    # A window cannot be as narrow as a telephone, a frame can.
    frames = "".join(
        f'<iframe style="width:{width}px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for width in widths
    )
    measure = (
        "onload=()=>{document.title=JSON.stringify([...document.querySelectorAll('iframe')].map("
        "f=>[f.contentDocument.documentElement.scrollWidth,"
        "...['.wide','.narrow'].map("
        "c=>getComputedStyle(f.contentDocument.querySelector(c)).display)]))}"
    )
    outside = folder / "frames.html"
    outside.write_text(f"<!doctype html><script>{measure}</script>{frames}", encoding="utf-8")
    shown = chromium(folder / "profile", "--dump-dom", outside.as_uri())
    return json.loads(html.unescape(re.search("<title>(.*?)</title>", shown.stdout)[1]))
