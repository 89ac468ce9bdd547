"""What all tests share: the servers, started once a kind, in an order that allows it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers import Servers

STARTED = pytest.StashKey[list[str]]()

# children inherit it: below nohup, where it is ignored, no test could see what a closed terminal
# does
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any(
        item.get_closest_marker("server") or "servers" in getattr(item, "fixturenames", ())
        for item in items
    ):
        from tests.servers import in_order

        items[:] = in_order(items)


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    from tests.servers import Servers, leave_behind

    for name in [name for name in os.environ if name.startswith("OEA_")]:
        del os.environ[name]
    os.environ.pop("TRITON_INTERPRET", None)  # the unit tests' own
    started = Servers(*(tmp_path_factory.mktemp(name) for name in ("patched", "records", "kept")))
    leave_behind(started.kept)
    request.config.stash[STARTED] = started.started
    yield started
    started.stop()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if kinds := config.stash.get(STARTED, []):
        terminalreporter.write_line(
            f"{len(kinds)} starts of servers that tests share: {', '.join(kinds)}"
        )
