"""docs/images/page-*.png made anew, from a real server under load.

`python -m tests.browser.pictures`: some three minutes. It needs Chromium (`make
system`), and the page's font (on Debian `apt-get install fonts-inter`).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from oea_server_demo import MODEL
from selenium.webdriver.chrome.webdriver import WebDriver

from loadtest.background import chatting
from oea_server.client.server import Server
from oea_server.observe import page
from tests.browser import stamp
from tests.browser.chromium import chromium, theme, window
from tests.browser.page import Page

FOLDER = Path(__file__).parents[2] / "docs/images"
COMMAND = ".venv/bin/python -m tests.browser.pictures"
THEMES = ("light", "dark")
WIDE, SMALL = 1280, (390, 844)
"""CSS pixels: the whole page on a desk, and a phone's first screen."""
CHATS = 16
POLICIES = (("oea", 30.0), ("vanilla", 25.0), ("oea", 45.0))
"""In turn, and for how many seconds: what the policy changes is then seen in every chart."""
MODEL_FLAGS = ("--model-path", str(MODEL), "--served-model-name", "demo", "--dtype", "float32")
FLAGS = (*MODEL_FLAGS, "--max-total-tokens", "65536", "--random-seed", "1")


def paths() -> tuple[Path, ...]:
    """The pictures."""
    return tuple(FOLDER / f"page-{size}{name}.png" for size in ("", "small-") for name in THEMES)


def shown() -> str:
    """The source that the pictures show, as a hash."""
    return stamp.digest(page.html())


def make() -> None:
    """Start, load, and take all of them."""
    if "Inter" not in subprocess.check_output(["fc-match", "Inter"], text=True):
        raise RuntimeError("the page's font is missing; on Debian: apt-get install fonts-inter")
    profile = Path(tempfile.mkdtemp(prefix="oea-pictures-"))
    driver = chromium(profile)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    try:
        with Server(*FLAGS) as server, chatting(server.url, CHATS):
            for policy, seconds in POLICIES:
                server.steer(policy=policy)
                time.sleep(seconds)
            shoot(driver, f"{server.url}/oea", FOLDER)
    finally:
        driver.quit()
        shutil.rmtree(profile)


def opened(driver: WebDriver, url: str) -> Page:
    """The page, with numbers in its charts."""
    opened = Page(driver)
    opened.open(url)
    opened.until(lambda: "mean" in opened.text("chart-distribution"), "a distribution")
    return opened


def shoot(driver: WebDriver, url: str, folder: Path) -> None:
    """Both themes and both sizes of the page at `url`, which has numbers to show."""
    for name in THEMES:
        theme(driver, name)
        window(driver, WIDE, 900)
        shot = opened(driver, url)
        high = int(shot.script("return document.documentElement.scrollHeight"))
        for size, width, height, pixels in (("", WIDE, high, 1.0), ("small-", *SMALL, 2.0)):
            window(driver, width, height, pixels)
            time.sleep(2)  # the charts take the new size at their next second
            if errors := shot.errors():
                raise RuntimeError(f"the page's console: {errors}")
            stamp.save(driver.get_screenshot_as_png(), folder / f"page-{size}{name}.png", shown())


if __name__ == "__main__":
    make()
