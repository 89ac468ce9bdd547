"""Questions to SGLang in a process of its own, which imports it once for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("OEA_", "SGLANG_PLUGINS"))
}
"""This process's environment without what would steer a server."""


def said(
    module: str, *arguments: str, given: Any = None, environment: Mapping[str, str] = CLEAN
) -> Any:
    """The JSON in the last line that ``python -m MODULE`` prints; `given` is its input, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
