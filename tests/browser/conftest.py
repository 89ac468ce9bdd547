"""One Chromium for all tests, with a profile that is thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.chromium import CHROMIUM, DRIVER, MISSING, chromium, theme, window
from tests.browser.page import Page
from tests.browser.stub import Stub
from tests.browser.world import World


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(MISSING)
    started = chromium(tmp_path_factory.mktemp("profile"))
    yield started
    started.quit()


@pytest.fixture
def page(driver: WebDriver) -> Page:
    window(driver, 1280, 900)
    theme(driver, "light")
    return Page(driver)


@pytest.fixture
def serve(page: Page) -> Iterator[Callable[..., Stub]]:
    """Start a stub for a world and open the page on it."""
    stubs: list[Stub] = []

    def started(world: World, state: str = "live", key: str = "", admin_key: str = "") -> Stub:
        stubs.append(Stub(world, key, admin_key))
        page.open(stubs[-1].url, state)
        return stubs[-1]

    yield started
    page.driver.get("about:blank")
    for stub in stubs:
        stub.stop()
