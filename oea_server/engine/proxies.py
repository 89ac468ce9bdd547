"""SGLang asks itself over HTTP (its warm-up does, with the API key): it must not go by a proxy.

Seam: BEFORE `ServerArgs.check_server_args`, with `launch`.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

HERE = ("localhost", "127.0.0.1", "::1")
VARIABLES = ("no_proxy", "NO_PROXY")
"""Variables that exempt from proxies, in both spellings: some readers look at one alone."""


def spare(server_args: Any, environ: MutableMapping[str, str] = os.environ) -> None:
    """Exempt this machine, and the address that the server listens on, from the proxies that are
    set."""
    hosts = (*HERE, urlsplit(server_args.url()).hostname)
    known = [each.strip() for name in VARIABLES for each in environ.get(name, "").split(",")]
    exempt = ",".join(dict.fromkeys(each for each in (*known, *hosts) if each))
    for name in VARIABLES:
        environ[name] = exempt
