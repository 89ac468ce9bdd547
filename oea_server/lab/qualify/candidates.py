"""What is to be qualified: `k0=3,share=0.2`, and the knobs by which a server is switched between
all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from oea_server import settings
from oea_server.client.config_command import parsed
from oea_server.lab.qualify.pairs import VANILLA
from oea_server.oneline import oneline
from oea_server.settings import Settings, SettingsError

SERVES_VANILLA = ("vanilla", "shadow")
OPTION = "--candidate"
OF_THE_SERVER = ("default_tier",)
"""Knobs that only the server can judge, which knows its tiers."""


class CandidateError(ValueError):
    """One clear line: the candidate, the knob, the bounds."""


class Candidate(NamedTuple):
    """A name and knobs as they are written."""

    name: str
    knobs: dict[str, str]

    def values(self) -> dict[str, Any]:
        """The knobs as the server takes them; a candidate that names no policy is OEA's."""
        return {"policy": "oea", **{knob: parsed(text) for knob, text in self.knobs.items()}}


def read(texts: Sequence[str]) -> list[Candidate]:
    """The candidates, in order.

    Raises:
        CandidateError: it is no knob of those that can be turned live, out of bounds, or given
        twice.
    """
    found: list[Candidate] = []
    for text in texts:
        candidate = _one(text)
        if candidate.values() in [each.values() for each in found]:
            raise CandidateError(f"{OPTION}={text}: is given twice")
        found.append(candidate)
    if not found:
        raise CandidateError(f'{OPTION}: give at least one, {OPTION} "k0=3"')
    return found


def _one(text: str) -> Candidate:
    shown, knobs = oneline(text), dict[str, str]()
    # a schedule has commas of its own, before numbers
    for part in re.split(r",(?=\s*[a-z])", text):
        name, given, value = (each.strip() for each in part.partition("="))
        name = name.replace("-", "_")
        if not given or not value or not re.fullmatch("[a-z][a-z0-9_]*", name):
            raise CandidateError(f"{OPTION}={shown}: {oneline(part)!r} is not KNOB=VALUE")
        if name in knobs:
            raise CandidateError(f"{OPTION}={shown}: {name} is given twice")
        knobs[name] = value
    candidate = Candidate(",".join(f"{name}={value}" for name, value in knobs.items()), knobs)
    alone = {knob: value for knob, value in candidate.values().items() if knob not in OF_THE_SERVER}
    try:
        settings.changed(Settings.model_construct(), alone)
    except SettingsError as error:
        raise CandidateError(f"{OPTION}={shown}: {oneline(str(error))}") from None
    return candidate


def arms(candidates: Sequence[Candidate], found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All that is switched to make a server vanilla, and each candidate.

    Args:
        found: the server's knobs, which hold wherever a candidate says nothing.
    """
    named = {**as_found(candidates, found), "policy": VANILLA}
    if "default_tier" in named:
        # requests that name no tier would be routed by it, whatever the candidate says
        named["default_tier"] = None
    return {VANILLA: named, **{each.name: {**named, **each.values()} for each in candidates}}


def as_found(candidates: Sequence[Candidate], found: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that any arm turns, as the server had them."""
    turned = {"policy", *(knob for each in candidates for knob in each.knobs)}
    if found.get("default_tier") is not None:
        turned.add("default_tier")
    return {name: found.get(name) for name in sorted(turned)}
