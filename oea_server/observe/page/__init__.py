"""The live page: one HTML document, made of the small files of this folder.

Nothing is fetched from elsewhere, and the Content-Security-Policy that it is sent with holds it to
that: its scripts and styles are named by their hashes, and it may talk to the server it came from
only. It is a header because what stands in the document cannot forbid frames, in which one click
would turn OEA off."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from oea_server.observe import change

FOLDER = Path(__file__).parent
STYLES = ("vendor/uPlot.min.css", "theme.css", "layout.css", "charts.css", "control.css")
SCRIPTS = (
    *("dom.js", "api.js", "keys.js", "history.js", "words.js", "theme.js"),
    *("plot.js", "charts.js", "heatmap.js", "distribution.js", "overview.js", "tables.js"),
    *("schema.js", "answers.js", "knobs.js", "control.js", "steering.js", "main.js"),
)
"""In the order of their imports: a file uses only what stands before it."""


@cache
def html() -> str:
    """The page, with the fields of this server's knobs."""
    return html_of(change.SCHEMA)


def html_of(knobs: Mapping[str, Any]) -> str:
    """The page, with the fields of a JSON schema of knobs."""
    inside = json.dumps(knobs).replace("<", "\\u003c")
    parts = {**_parts(), "knobs": inside}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


@cache
def headers() -> dict[str, str]:
    """The headers that the page is sent with."""
    parts = _parts()
    policy = (
        *(
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"style-src {_hash(parts['style'])}",
        ),
        f"script-src {_hash(parts['library'])} {_hash(parts['script'])}",
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(policy),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


@cache
def _parts() -> dict[str, str]:
    """What the document's scripts and styles are made of, by its placeholders."""
    return {
        "style": "\n".join(_read(name) for name in STYLES),
        "library": f"/*!\n{_read('vendor/uPlot-LICENSE')}*/\n{_read('vendor/uPlot.iife.min.js')}",
        "script": (
            '(() => {\n"use strict";\n' + "\n".join(_script(name) for name in SCRIPTS) + "})();\n"
        ),
    }


def _script(name: str) -> str:
    """A module's text for the one scope that the modules share in the page."""
    text = re.sub(r"^import .*;\n", "", _read(name), flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
