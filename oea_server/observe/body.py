"""The body of a request, as far as we are ready to read it."""

from __future__ import annotations

from fastapi import Request

LARGEST = 16 * 1024
"""Bytes. Every knob at its longest fits in: a schedule has at most 4096 characters."""

DIGITS = 9
"""Digits of a number above which a length is too large, without being read."""


class TooLargeError(ValueError):
    """One line: the bound, and what is known of the size."""


async def read(request: Request) -> bytes:
    """The body; what its length says is believed only where it is too much.

    Raises:
        TooLargeError: it is larger than `LARGEST`; no more than that was kept.
        starlette.requests.ClientDisconnect: the client left before the end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > DIGITS or int(declared) > LARGEST):
        raise TooLargeError(f"a body of {declared[: DIGITS + 1]} bytes is above {LARGEST}")
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > LARGEST:
            raise TooLargeError(f"the body is above {LARGEST} bytes")
        body += part
    return bytes(body)
