"""How a server is judged whose /dev/shm fills up under streams: it answers all, or ends and says
why."""

from __future__ import annotations

import pytest

from loadtest.chaos.shared_memory import wrong_with

WHOLE, CUT = ["whole"] * 6, ["whole"] * 3 + ["ClientPayloadError"] * 3
SAID = "Fatal Python error: Bus error"
MINE = "/dev/shm/psm_17"
KNOWN = "/dev/shm/sglang_loads_0_1.shm"


@pytest.mark.parametrize("files", [[], [MINE]])
def test_an_end_that_says_why_is_right(files: list[str]) -> None:
    assert wrong_with(CUT, -7, SAID, [], files) == ([], [])


def test_a_server_that_runs_on_is_right_and_what_sglang_leaves_is_told() -> None:
    assert wrong_with(WHOLE, None, "", [], [KNOWN]) == ([], ["leaves /dev/shm/sglang_loads_*"])


@pytest.mark.parametrize(
    ("saw", "code", "said", "group", "files", "why"),
    [
        (CUT, None, "", [], [], "it runs, and not every chat is answered"),
        (CUT, None, SAID, [], [], "it runs, and not every chat is answered"),
        (CUT, -7, "", [], [], "it does not say why it ended"),
        (CUT, -7, SAID, ["python 17"], [], "left behind: python 17"),
        (WHOLE, None, "", ["python 17"], [], "left behind: python 17"),
        (WHOLE, None, "", [], [MINE], f"left: {MINE}"),
    ],
)
def test_anything_else_breaks(
    saw: list[str], code: int | None, said: str, group: list[str], files: list[str], why: str
) -> None:
    assert wrong_with(saw, code, said, group, files) == ([why], [])
