"""The command `oea-server demo`."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    chats: Annotated[int, typer.Option(min=1, max=64, help="concurrent chats")] = 16,
    tokens: Annotated[int, typer.Option(min=8, max=1024, help="tokens per answer")] = 128,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="measured rounds per policy")] = 3,
) -> None:
    """Serve the demo model, switching between vanilla and OEA, and print both side by side."""
    from oea_server.lab.demo.compare import compare

    compare(chats, tokens, rounds)
