"""The rooms of the package and the arrows between them: which room may import which."""

from __future__ import annotations

SMALL = ["addresses", "oneline", "provenance", "folders", "schema_words", "terminal", "shipped"]
"""Single files that say one thing and import no room; every room may import them."""

MAY_IMPORT: dict[str, set[str]] = {
    "routing": set(),
    "access": set(),
    "client": {"access"},
    "tiers": {"routing"},
    "settings": {"access", "routing", "tiers"},
    "command_line": {"settings"},
    "observe": {"access", "routing", "settings", "tiers"},
    "controller": {"observe", "settings"},
    "engine": {"access", "controller", "observe", "routing", "settings", "tiers"},
    "cpu": {"engine", "routing"},
    "patching": set(),
    "serve": {"access", "command_line", "controller", "engine", "observe", "settings"},
    "doctor": {"command_line", "cpu", "engine", "serve", "settings"},
    "absent": {"command_line", "doctor", "engine", "serve", "settings"},
    "cli": {"absent", "client", "doctor", "patching", "serve", "settings"},
    # the laboratory, above all of them, which none of them imports
    "lab.records": {"routing"},
    "lab.bench": {"client", "cpu", "lab.demo", "lab.records", "routing"},
    "lab.demo": {"client", "lab.records"},
    "lab.recipes": {"engine"},
    "lab.qualify": {"client", "lab.records", "settings"},
    "lab.reference": {"controller", "engine", "observe", "settings"},
    "lab.releases": {"engine", "patching"},
    "lab.quality": {
        "client",
        "controller",
        "engine",
        "lab.bench",
        "lab.records",
        "observe",
        "routing",
        "settings",
    },
}
"""A room, and those that it may import: the lowest rooms first."""

KNOW_SGLANG = ("absent", "engine", "cpu", "doctor", "patching", "serve", "lab.bench", "lab.demo")
"""Rooms that may import SGLang."""
