"""Whether all ranks route by the same settings: each says what it goes by, and each compares all
answers."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from oea_server import provenance
from oea_server.engine import meeting, plugin
from oea_server.engine.meeting import Answer, DisagreementError, World
from oea_server.engine.routers import Router
from oea_server.routing.calibrated import calibrated
from oea_server.settings import Settings

APART = (
    *("allow_inactive", "per_layer_metrics", "latency_line", "admin_key_file", "api_key_file"),
    *("target_tpot", "rungs", "quality_floor", "tier_header", "tier_keys"),
)
"""Settings that change no rank's choice of experts, and so may differ between ranks. The settings
say what is reported, refused, who may ask, and who asks for changes, which all ranks take
together."""

KEPT = 16
"""Changes that stay in the store: later pipeline stages read what earlier ones said a few steps
ago."""

ALIKE = "start all ranks with the same oea-server, SGLang and flags"

NAMED = 4
"""Differences that one line names."""


def at_load(here: World, answer: Answer) -> list[Answer]:
    """What all ranks say of themselves (`about`), in their order, if it is the same.

    Raises:
        DisagreementError
    """
    ranks = range(here.size)
    answers = meeting.exchange(here, "load", answer, ranks)
    if line := difference(here, answers, "everywhere", "stage"):
        meeting.take_leave(here, "load", ranks)
        raise DisagreementError(f"{line}; {ALIKE}")
    return [answers[rank] for rank in ranks]


def at_change(here: World, turn: int, settings: Settings, outcome: Mapping[str, str]) -> str | None:
    """Why a change must not be taken, None if it comes to the same on all ranks.

    The ranks of a pipeline stage get a request at the same place between two steps. SGLang hands it
    to the next stage when this one is done. So earlier stages are looked at, and later ones are not
    waited for.

    Args:
        turn: which request for a change this is, counted alike on all ranks.
        settings: those in effect.
        outcome: what the change comes to on this rank.

    Raises:
        DisagreementError: the server must end: ranks go by different knobs, or one of them did not
        answer.
    """
    topic = f"change {turn}"
    first = here.first_of_stage(here.rank)
    ranks = range(first + here.width)
    said = {**introduction(), "everywhere": knobs_of(settings), "outcome": outcome}
    answers = meeting.exchange(here, topic, said, ranks)
    before, after = (difference(here, answers, part) for part in ("everywhere", "outcome"))
    earlier = {rank: answers[rank] for rank in range(first)}
    taken = (
        bool(earlier)
        and answers[0]["outcome"]["refusal"] == "none"
        and not difference(here, earlier, "outcome")
    )
    if why := before or (after if taken else None):
        meeting.take_leave(here, topic, ranks)
        raise DisagreementError(why)
    meeting.forget(here, f"change {turn - KEPT}")
    return after


@cache
def introduction() -> dict[str, str]:
    """A rank's version and host, as loaded. Every version has `version` there, to be told apart
    by."""
    return {"version": provenance.version("oea-server"), "host": socket.gethostname()}


def about(
    settings: Settings, found: Sequence[Router], num_experts: int, clash: str
) -> dict[str, Any]:
    """What this rank goes by: what must be the same everywhere, and what in its pipeline stage.

    Args:
        found: the routers of its pipeline stage, handled or not.
        clash: the SGLang options that allow vanilla alone, empty if none does.
    """
    everywhere = {
        "code": provenance.code(),
        "SGLang": provenance.version("sglang"),
        "seams": "patched" if plugin.patched else "hooks",
        **knobs_of(settings),
        **schedule_of(settings),
        "options for vanilla alone": clash or "none",
    }
    return {
        **introduction(),
        "everywhere": everywhere,
        "stage": {"experts": str(num_experts), **layers_of(found)},
    }


def knobs_of(settings: Settings) -> dict[str, str]:
    """All knobs that route, in words; the schedule's path is none of them."""
    knobs = settings.model_dump(exclude={*APART, "schedule"})
    return {name: "none" if value is None else str(value) for name, value in knobs.items()}


def schedule_of(settings: Settings) -> dict[str, str]:
    """The content of the schedule's file, wherever the file lies."""
    if settings.schedule is None:
        return {"schedule": "none"}
    held = calibrated(settings.schedule, None)
    default, *layers = str(held.k0).split("; ")
    parts = (part.partition("=") for part in layers)
    found = {
        "schedule": default,
        **{f"schedule of layer {layer}": steps for layer, _, steps in parts},
    }
    return found | {"schedule's share": str(held.share), "schedule's mix": str(held.mix)}


def layers_of(found: Sequence[Router]) -> dict[str, str]:
    """The routers in words, by layer."""
    counted = Counter(
        (f"layer {each.layer}" if each.layer >= 0 else "layers", str(each)) for each in found
    )
    texts: dict[str, list[str]] = {}
    for (layer, kind), n in counted.items():
        texts.setdefault(layer, []).append(kind if n == 1 else f"{n} x {kind}")
    return {layer: " and ".join(kinds) for layer, kinds in texts.items()}


def difference(here: World, answers: Mapping[int, Answer], *parts: str) -> str | None:
    """Where the answers differ, with both values and their ranks; None if they don't.

    Args:
        parts: of the answers. "stage" is compared within each pipeline stage, others with rank 0.
    """
    found: dict[str, str] = {}
    for rank, answer in sorted(answers.items()):
        for part in ("oea-server", *parts):
            like = here.first_of_stage(rank) if part == "stage" else 0
            one, other = values(answers[like], part), values(answer, part)
            for name in {**one, **other}:
                pair = {like: one.get(name, "none"), rank: other.get(name, "none")}
                if pair[like] != pair[rank]:
                    whose = ", ".join(
                        f"{value} on {here.named(each, answers)}" for each, value in pair.items()
                    )
                    found.setdefault(name, f"{name} {whose}")
            if part in found:
                break  # what another version says may mean something else
    if not found:
        return None
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"ranks differ: {'; '.join(list(found.values())[:NAMED])}{more}"


def values(answer: Answer, part: str) -> Mapping[str, str]:
    """A part of an answer, by names. Another version's may not have it."""
    if part == "oea-server":
        return {part: answer["version"]}
    found: Mapping[str, str] = answer.get(part, {})
    return found
