"""Files that prometheus_client can merge into /metrics: one that it cannot read must not take all others with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oea_server.observe import files
from oea_server.observe.quiet import Complaints

logger = logging.getLogger(__name__)

NAME = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_.+\.db")


def skip_the_rest() -> None:
    """Have `MultiProcessCollector` merge only those, in this process."""
    from prometheus_client.multiprocess import MultiProcessCollector

    merge = MultiProcessCollector.merge
    complaints = Complaints(logger, "/metrics")

    def merge_what_can_be(paths: Iterable[str], accumulate: bool = True) -> Any:
        paths = list(paths)
        unread = {path: why for path in paths if (why := unfit(Path(path)))}
        rest = [path for path in paths if path not in unread]
        try:
            merged = merge(rest, accumulate)
        except Exception:
            unread |= {path: why for path in rest if (why := unmergeable(path, merge))}
            merged = merge([path for path in rest if path not in unread], accumulate)
        complaints.about(unread)
        return merged

    MultiProcessCollector.merge = staticmethod(merge_what_can_be)  # type: ignore[method-assign]


def unfit(path: Path) -> str | None:
    """Why a file is not even opened; None if it is."""
    if not NAME.fullmatch(path.name):
        return "not named as prometheus_client names its files"
    try:
        return files.unfit(path)
    except OSError as error:
        return str(error)


def unmergeable(path: str, merge: Any) -> str | None:
    """Why a file cannot be merged; None if it can."""
    try:
        merge([path], True)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
