"""docs/troubleshooting.md has every refusal that the source can print, and no other."""

from __future__ import annotations

from oea_server.lab.reference import troubleshooting
from oea_server.lab.reference.refusals import refusals

TEXTS = refusals()
FRAGMENTS = troubleshooting.quoted(troubleshooting.PAGE.read_text(encoding="utf-8"))


def test_every_refusal_has_a_row() -> None:
    missing = troubleshooting.missing(TEXTS, FRAGMENTS)
    assert not missing, "\n".join(f"{each.module}:{each.line} {each.text}" for each in missing)
