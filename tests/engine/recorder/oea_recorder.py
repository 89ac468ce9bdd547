"""A plug-in of the tests: every rank writes down each counted decode step, and by what each layer routed it.

On the server's PYTHONPATH together with its .dist-info; one file per process in the folder that RECORDER_FOLDER names.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oea_server.engine.runtime import Runtime


def activate() -> None:
    """Wrap the runtime's own methods, in whichever process loads plug-ins."""
    path = Path(os.environ["RECORDER_FOLDER"]) / f"{os.getpid()}.jsonl"
    decoding, is_vanilla, route = Runtime.decoding, Runtime.is_vanilla, Runtime.route
    layers: list[Any] = []

    @contextmanager
    def recorded(self: Runtime, step: Any) -> Iterator[None]:
        layers.clear()
        with decoding(self, step):
            yield
        if step.counted:
            with path.open("a") as file:
                file.write(json.dumps({"batch": step.batch, "layers": layers}) + "\n")

    def recorded_is_vanilla(self: Runtime, router: Any) -> bool:
        vanilla = is_vanilla(self, router)
        layers.append([router.layer, f"{self.policy.name} {self.policy.k0}", None])
        return vanilla

    def recorded_route(self: Runtime, router: Any, logits: Any) -> Any:
        routing = route(self, router, logits)
        layers[-1][2] = zlib.crc32(routing.ids.numpy().tobytes())
        return routing

    Runtime.decoding = recorded  # type: ignore[method-assign]
    Runtime.is_vanilla = recorded_is_vanilla  # type: ignore[method-assign]
    Runtime.route = recorded_route  # type: ignore[method-assign]
