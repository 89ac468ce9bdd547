"""Chromium without a screen, one for all tests, with a profile of its own that is thrown away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.page import Page
from tests.browser.stub import Stub
from tests.browser.world import World

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(
            "no chromium with chromedriver here; on Debian: apt-get install chromium"
            " chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, Service(DRIVER))
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


def window(driver: WebDriver, width: int, height: int, pixels: float = 1.0) -> None:
    """The size of the page itself, also below what a window may have."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": pixels, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def theme(driver: WebDriver, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def picture(driver: WebDriver, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(path))
