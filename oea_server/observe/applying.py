"""One change of knobs, from what was asked to what holds: asked of the schedulers, of all of them
or none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from fastapi import Request

from oea_server import settings
from oea_server.settings import Settings, SettingsError

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that a change waits for the schedulers: longer than a long prefill, shorter than proxies
wait."""

GONE = 499
"""nginx's status for a client that left: logged only."""


class Schedulers(Protocol):
    """The way to the scheduler processes."""

    async def states(self) -> list[dict[str, Any]]:
        """`oea_server.engine.control.state_of` of each data-parallel replica, and "refused", its
        last refusal."""

    async def change(self, knobs: Mapping[str, Any]) -> list[bool]:
        """Change knobs on all ranks between two steps. Whether each replica took all of them; else
        it took none."""


class RefusalError(Exception):
    """An HTTP status, and one line that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Applied(NamedTuple):
    """The state after a change, and the knobs that differ: name -> [old, new]."""

    state: dict[str, Any]
    changes: dict[str, list[Any]]


async def apply(
    schedulers: Schedulers, asked: Mapping[str, Any], request: Request | None = None
) -> Applied:
    """Change the knobs of all replicas, or of none.

    Args:
        request: whose wish it is, which holds if the client is still there and the version is the
            one that it knows.

    Raises:
        RefusalError: 409 they clash, 412 the version is another, 499 the client left, 504 no answer
        in time.
    """
    before = (await patiently(schedulers.states(), "nothing changed"))[0]
    if request is not None and not matches(request.headers.get("if-match"), before["version"]):
        raise RefusalError(
            412,
            f"If-Match: the version is {before['version']} by now; nothing changed; GET"
            " /oea/config, and ask again",
        )
    if problem := clash(before, asked):
        raise RefusalError(409, problem)
    if request is not None and await request.is_disconnected():
        raise RefusalError(GONE, "the client left before its turn; nothing changed")
    taken = await patiently(schedulers.change(asked), "it may still be applied")
    if not all(taken):
        states = await schedulers.states()
        why = [state["refused"] for state, took in zip(states, taken, strict=True) if not took]
        if any(taken):
            await schedulers.change(before["settings"])  # replicas change together or not at all
        raise RefusalError(409, why[0])
    after = (await schedulers.states())[0]
    return Applied(after, difference(before["settings"], after["settings"]))


async def patiently(answer: Awaitable[T], what: str) -> T:
    """What schedulers answer, if they do in time; a question that is on its way is not taken back.

    Raises:
        RefusalError: 504.
    """
    asking = asyncio.ensure_future(answer)
    done, _ = await asyncio.wait({asking}, timeout=PATIENCE)
    if not done:
        raise RefusalError(504, f"the schedulers did not answer in {PATIENCE:.0f} s; {what}")
    return asking.result()


def tag(version: int) -> str:
    """The ETag of a version of the knobs."""
    return f'"{version}"'


def matches(wanted: str | None, version: int) -> bool:
    """Whether an If-Match header names a version, or asks for none."""
    return wanted is None or any(each.strip() in ("*", tag(version)) for each in wanted.split(","))


def clash(state: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Why the knobs cannot be changed so, None if they can: what every scheduler will find as
    well."""
    model = state["model"]
    if "policy" in asked or not state["policies"]:
        policy = asked.get("policy", state["settings"]["policy"])
        if policy not in state["policies"]:
            return f"policy={policy}: {state['fixed']}"
    try:
        before = Settings(**state["settings"])
        after = settings.changed(before, asked)
        after.check(
            k=model["top_k"], num_experts=model["num_experts"], renormalize=model["renormalize"]
        )
        after.check_new(model["top_k"], before)
    except (SettingsError, ValueError) as error:
        return str(error)
    return None


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Knobs that differ: name -> [old, new]."""
    return {name: [before[name], after[name]] for name in after if before[name] != after[name]}
