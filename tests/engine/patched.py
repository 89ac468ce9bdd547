"""The installed SGLang with our patches in it, as a copy for tests: put it first on the path."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from oea_server.patching.installed import look

IS_PATCHED = find_spec("sglang.srt.layers.moe.batch_routing") is not None
"""Whether these tests themselves run on such a copy."""


def patched_copy(folder: Path) -> Path:
    """Make the copy in `folder`, out of links; what is patched becomes files of its own."""
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(
        package, folder / "sglang", copy_function=link
    )  # what is compiled too: Python tells by date and size
    look(version("sglang"), folder).apply()
    return folder


def link(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:  # another file system
        shutil.copy2(source, to)
