"""docs/images/dashboard-*.png made anew, of what `python -m deploy.grafana.preview.record` wrote.

`python -m deploy.grafana.preview.draw FILE`. With a width in pixels behind it, pictures of that
width go to build/dashboard, to be looked at. It needs Chromium, and npm with its registry.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from deploy.grafana.dashboard import FILE
from tests.browser import stamp
from tests.browser.chromium import chromium, window

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build/dashboard"
FOLDER = ROOT / "docs/images"
COMMAND = "python -m deploy.grafana.preview.record FILE; python -m deploy.grafana.preview.draw FILE"
THEMES = ("light", "dark")
WIDTH = 1600
FONTS = {"Regular": 400, "Medium": 500}
HTML = """<!doctype html><meta charset="utf-8">
<link rel="stylesheet" href="preview.css"><link rel="icon" href="data:,"><body><div id="root"></div>
<script>window.__grafana_public_path__ = "public/"</script>
<script type="module" src="preview.js"></script>"""


def paths(folder: Path = FOLDER) -> tuple[Path, ...]:
    """The pictures."""
    return tuple(folder / f"dashboard-{name}.png" for name in THEMES)


def shown() -> str:
    """What the pictures show of the dashboard, as a hash: all but what a mouse has to ask for."""
    dashboard = json.loads(FILE.read_text())
    for panel in dashboard["panels"]:
        panel.pop("description", None)
    return stamp.digest(json.dumps(dashboard, sort_keys=True))


def build(record: Path) -> Path:
    """The page with Grafana's components in it, from npm's registry; a minute the first time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "preview.jsx"):
        shutil.copy(HERE / name, BUILD)
    shutil.copy(FILE, BUILD / "dashboard.json")
    shutil.copy(record, BUILD / "record.json")
    (BUILD / "index.html").write_text(HTML)
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock")
    npm("npm", "install", "--legacy-peer-deps", *quiet)
    bundle = ("--bundle", "--format=esm", "--loader:.ttf=empty", "--outfile=preview.js")
    production = "--define:process.env.NODE_ENV='production'"
    npm("npx", "esbuild", "preview.jsx", "--log-level=warning", "--minify", production, *bundle)
    packages, public = BUILD / "node_modules", BUILD / "public"
    icons = packages / "@grafana/ui/dist/public/img"
    shutil.copytree(icons, public / "build/img", dirs_exist_ok=True)
    (public / "fonts/inter").mkdir(parents=True, exist_ok=True)
    for name, weight in FONTS.items():
        font = packages / f"@fontsource/inter/files/inter-latin-{weight}-normal.woff2"
        shutil.copy(font, public / f"fonts/inter/Inter-{name}.woff2")
    return BUILD


def npm(*command: str) -> None:
    """One command, in the folder of the build."""
    subprocess.run(command, cwd=BUILD, check=True)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def shoot(url: str, folder: Path, width: int) -> None:
    """The whole dashboard in both themes."""
    with tempfile.TemporaryDirectory() as profile:
        driver = chromium(Path(profile))
        try:
            for path, name in zip(paths(folder), THEMES, strict=True):
                window(driver, width, 1000)
                driver.get(f"{url}/index.html?theme={name}")
                window(driver, width, WebDriverWait(driver, 60).until(height))
                time.sleep(2)  # charts are drawn after the page is laid out
                png = driver.get_screenshot_as_png()
                stamp.save(png, path, shown(), Image.Quantize.MEDIANCUT)
        finally:
            driver.quit()


def height(driver: WebDriver) -> int:
    """The dashboard's height in pixels; 0 as long as it is not drawn."""
    return int(driver.execute_script("return document.getElementById('root').scrollHeight"))


if __name__ == "__main__":
    with served(build(Path(sys.argv[1]))) as address:
        if len(sys.argv) > 2:
            shoot(address, BUILD, int(sys.argv[2]))
        else:
            shoot(address, FOLDER, WIDTH)
