"""What goes wrong once a second is not logged once a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

REMIND = 60.0
"""Seconds between two lines about a failure that goes on."""


class Failures:
    """The failures of a loop: the first in full, then a line a minute, then a line that it is over.

    Args:
        what: what failed, and what that means.
    """

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger, self._what = logger, what
        self._said = 0.0
        self._times = 0

    def attempt(self, turn: Callable[[], None]) -> None:
        """One turn of the loop, which goes on whatever comes of it."""
        try:
            turn()
        except Exception as error:
            self.failed(error)
        else:
            self.succeeded()

    def failed(self, error: Exception) -> None:
        now = time.monotonic()
        self._times += 1
        if self._times == 1:
            self._logger.error("OEA: %s", self._what, exc_info=error)
            self._said = now
        elif now - self._said >= REMIND:
            self._logger.error(
                "OEA: %s, %d times by now: %s: %s",
                self._what,
                self._times,
                type(error).__name__,
                error,
            )
            self._said = now

    def succeeded(self) -> None:
        if self._times > 1:
            self._logger.info("OEA: it works again, after %d failures: %s", self._times, self._what)
        self._times = 0


class Complaints:
    """Files that are passed over, each named once while it lies there."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger, self._what = logger, what
        self._named: frozenset[str] = frozenset()

    def about(self, files: Mapping[str, str]) -> None:
        """Name the files that are new; `files` are all that are passed over now: path -> why."""
        for path, why in files.items():
            if path not in self._named:
                self._logger.warning("OEA: %s passed over %s: %s", self._what, path, why)
        self._named = frozenset(files)
