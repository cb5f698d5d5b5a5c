"""Pages as tests read them: strictly, and by a browser."""

import shutil
import subprocess
from html.parser import HTMLParser

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
