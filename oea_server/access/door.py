"""The ASGI app in front of SGLang's: what reaches SGLang has an ordinary host, and changes nothing
unasked.

It stands before every middleware, in every HTTP worker, whether or not SGLang asks for keys there.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute, Match

from oea_server.access import answers, origin
from oea_server.access.answers import App, Message, Receive, Scope, Send
from oea_server.access.keys import Keys

READS = frozenset({"GET", "HEAD"})


class Door:
    """An ASGI app around another.

    Args:
        control: the routes that change what serves, or tell what is nobody else's business.
        on_startup: called once the app has started, before it serves; ends the process if it must
            not.
    """

    def __init__(
        self,
        app: App,
        keys: Keys,
        control: Sequence[Any],
        on_startup: Callable[[Door], Awaitable[None]],
    ) -> None:
        self.app = app
        self.keys = keys
        self.control = control
        self._on_startup = on_startup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._asked_first(send))
            return
        if origin.odd_host(scope):
            await answers.refuse(scope, send, 400, "Host: not a name or an address with a port")
            return
        if scope["type"] == "websocket" and self.keys.api and not bears(scope, self.keys.api):
            # SGLang asks for keys in HTTP alone
            await answers.refuse(scope, send, 401, "Unauthorized")
            return
        route = self.route(scope)
        if route is not None and (refusal := self.refusal(scope, writes(route))):
            await answers.refuse(scope, send, *refusal)
            return
        if self.keys.given and (route is not None or scope.get("method") == "GET"):
            send = answers.masking(send, self.keys.given)
        await self.app(scope, receive, send)

    def route(self, scope: Scope) -> BaseRoute | None:
        """The route of control that a request would reach."""
        if scope["type"] != "http":
            return None
        return next(
            (route for route in self.control if route.matches(scope)[0] is Match.FULL), None
        )

    def refusal(self, scope: Scope, write: bool) -> tuple[int, str] | None:
        """The status and the line that refuse a request to a route of control, None if it may
        pass."""
        if write and (site := origin.foreign(scope)) is not None:
            return (
                403,
                f"a page of another origin asked ({site[:100]!a}): nothing changed; ask from this"
                " server's own page",
            )
        if self.keys.control is not None:
            return None if bears(scope, self.keys.control) else (401, "Unauthorized")
        if write and not origin.from_this_machine(scope):
            return 403, OPEN
        return None

    def _asked_first(self, send: Send) -> Send:
        async def asking(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._on_startup(self)
            await send(message)

        return asking


OPEN = (
    "this server has no key, so only its own machine may change it, by an address or localhost:"
    " start it with OEA_ADMIN_KEY_FILE or OEA_ADMIN_KEY, or ask there (in a container: docker exec"
    " NAME oea-server config set ...)"
)


def writes(route: Any) -> bool:
    """Whether requests to a route of control change anything: SGLang's also do by GET where POST is
    taken too."""
    return not set(route.methods) <= READS


def bears(scope: Scope, key: str) -> bool:
    """Whether a request carries a key, as `sglang.srt.utils.auth` wants it."""
    given = origin.values(scope, b"authorization")
    if len(given) != 1:
        return False
    scheme, _, token = given[0].partition(" ")
    return scheme.lower() == "bearer" and secrets.compare_digest(
        token.encode("latin-1"), key.encode()
    )
