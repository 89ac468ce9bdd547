"""A folder of this start's own for prometheus_client's files and for ours.

Seam: BEFORE `sglang.srt.utils.common.set_prometheus_multiproc_dir`, which SGLang calls before it
spawns anything, if the server has metrics. Where a folder is named SGLang uses it as it is, with
all that earlier starts left in it."""

from __future__ import annotations

import os

from oea_server.engine.refuse import refuse
from oea_server.observe import folder


def before_set_prometheus_multiproc_dir() -> None:
    """Make the folder of the metrics, and name it to SGLang."""
    try:
        folder.make()
    except OSError as error:
        given = os.environ.get(folder.VARIABLE)
        where = f"{folder.VARIABLE}={given}" if given else "the folder for temporary files (TMPDIR)"
        refuse(
            f"{where}: no folder for the metrics can be made in it: {error.strerror or error}; name"
            f" one that can be written to ({folder.VARIABLE})"
        )
