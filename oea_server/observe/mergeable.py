"""Files that prometheus_client can merge into /metrics. A file that it cannot read must not take
all others with it, and a file that no process of this start wrote must not count."""

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


def skip_the_rest(place: Path) -> None:
    """Have `MultiProcessCollector` merge only mergeable files, in this process.

    Args:
        place: the folder. What is in it by now counts, even of a process that is over: another
            worker's, before this one was started anew.
    """
    from prometheus_client.multiprocess import MultiProcessCollector

    merge = MultiProcessCollector.merge
    complaints = Complaints(logger, "/metrics")
    known = {str(path) for path in place.glob("*.db")}

    def merge_what_can_be(paths: Iterable[str], accumulate: bool = True) -> Any:
        paths = list(paths)
        unread = {path: why for path in paths if (why := unfit(Path(path)))}
        for path in set(paths) - known - set(unread):
            if is_written(Path(path)):
                known.add(path)
            else:
                unread[path] = "no process of that id writes it"
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


def is_written(path: Path) -> bool:
    """Whether the process that a file is named after has it open, as prometheus_client does: mapped
    into memory."""
    pid = path.stem.rpartition("_")[2]
    try:
        maps = Path("/proc", pid, "maps").read_text(errors="replace")
    except OSError:  # there is none, or it is another user's
        return not Path("/proc/self/maps").exists()  # where nobody can tell
    return any(line.endswith(f"/{path.parent.name}/{path.name}") for line in maps.splitlines())


def unmergeable(path: str, merge: Any) -> str | None:
    """Why a file cannot be merged; None if it can."""
    try:
        merge([path], True)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
