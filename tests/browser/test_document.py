"""The document itself, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from oea_server.observe import change
from oea_server.observe.page import FOLDER, SCRIPTS, STYLES, headers, html
from oea_server.settings import LIVE


def test_all_of_it_is_inside() -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*["']""", html())
    assert not re.findall(r"(?:url\(|@import)", html())
    assert "{{" not in re.sub(r"<(script|style)>.*?</\1>", "", html(), flags=re.DOTALL)


def test_every_file_of_the_folder_is_in_it() -> None:
    files = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*.*")
        if path.suffix in (".js", ".css")
    }
    assert files == {*SCRIPTS, *STYLES, "vendor/uPlot.iife.min.js"}


def test_the_schema_of_the_live_knobs_is_in_it() -> None:
    inside = re.search(r'id="knob-schema">(.*?)</script>', html())
    assert inside is not None
    assert json.loads(inside[1]) == change.SCHEMA
    assert tuple(change.SCHEMA["properties"]) == LIVE


def test_no_module_uses_one_that_stands_after_it() -> None:
    for i, name in enumerate(SCRIPTS):
        text = (FOLDER / name).read_text(encoding="utf-8")
        used = re.findall(r'^import .* from "\./(.*)";$', text, re.MULTILINE)
        assert len(used) == text.count("import "), name
        assert set(used) <= set(SCRIPTS[:i]), name


def test_its_policy_names_what_it_contains_and_nothing_else() -> None:
    policy = headers()["Content-Security-Policy"]
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", html(), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
    assert len(hashes) == 3
    assert re.findall(r"'sha256-([^']*)'", policy) == hashes
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; connect-src 'self';")
    assert "frame-ancestors 'none'" in policy.split("; ")


def test_what_a_header_says_no_meta_says_again() -> None:
    assert not re.findall(r"<meta http-equiv|Content-Security-Policy", html())
    assert all(value.isascii() and "\n" not in value for value in headers().values())


def test_uplot_is_unchanged_and_bears_its_licence() -> None:
    note = (FOLDER / "vendor/README.md").read_text(encoding="utf-8")
    sums = re.findall(r"([0-9a-f]{64})  (\S+)", note)
    assert len(sums) == 2
    for digest, name in sums:
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest
    assert "Copyright (c) 2022 Leon Sorokin" in html()
