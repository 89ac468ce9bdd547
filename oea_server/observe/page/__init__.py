"""The live page: one HTML document, made of the small files of this folder.

Nothing is fetched from elsewhere, and the document's own Content-Security-Policy holds it to that:
its scripts and styles are named by their hashes, and it may talk to the server it came from only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
STYLES = ("vendor/uPlot.min.css", "theme.css", "layout.css", "charts.css", "control.css")
SCRIPTS = (
    *("dom.js", "api.js", "keys.js", "history.js", "words.js", "theme.js"),
    *("plot.js", "charts.js", "heatmap.js", "distribution.js", "overview.js", "tables.js"),
    *("knobs.js", "control.js", "main.js"),
)
"""In the order of their imports: a file uses only what stands before it."""


@cache
def html() -> str:
    """The page."""
    style = "\n".join(_read(name) for name in STYLES)
    library = f"/*!\n{_read('vendor/uPlot-LICENSE')}*/\n{_read('vendor/uPlot.iife.min.js')}"
    script = '(() => {\n"use strict";\n' + "\n".join(_script(name) for name in SCRIPTS) + "})();\n"
    parts = {
        "policy": f"default-src 'none'; connect-src 'self'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(library)} {_hash(script)}; base-uri 'none'; form-action 'none'",
        "style": style,
        "library": library,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def _script(name: str) -> str:
    """A module's text for the one scope that the modules share in the page."""
    text = re.sub(r"^import .*;\n", "", _read(name), flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
