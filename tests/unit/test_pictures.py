"""Pictures in the documents are of the code as it is now, not of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.grafana.preview import draw
from tests.browser import pictures, stamp


@pytest.mark.parametrize("path", pictures.paths(), ids=lambda path: path.stem)
def test_a_picture_of_the_page_is_of_this_page(path: Path) -> None:
    assert stamp.read(path) == pictures.shown(), f"make them anew: {pictures.COMMAND}"


@pytest.mark.parametrize("path", draw.paths(), ids=lambda path: path.stem)
def test_a_picture_of_the_dashboard_is_of_this_dashboard(path: Path) -> None:
    assert stamp.read(path) == draw.shown(), f"make them anew: {draw.COMMAND}"
