"""Draw what `python -m deploy.grafana.preview.record FILE` wrote: `... .preview FILE [FOLDER]`."""

from __future__ import annotations

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

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from deploy.grafana.dashboard import FILE
from tests.browser.chromium import chromium, picture, theme, window

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build/dashboard"
WIDTHS = (1600, 800)
FONTS = {"Regular": 400, "Medium": 500}
HTML = """<!doctype html><meta charset="utf-8">
<link rel="stylesheet" href="preview.css"><link rel="icon" href="data:,"><body><div id="root"></div>
<script>window.__grafana_public_path__ = "public/"</script>
<script type="module" src="preview.js"></script>"""


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


def shoot(url: str, folder: Path) -> None:
    """The whole dashboard in both themes, at each width."""
    with tempfile.TemporaryDirectory() as profile:
        driver = chromium(Path(profile))
        for name in ("light", "dark"):
            theme(driver, name)
            for width in WIDTHS:
                window(driver, width, 1000)
                driver.get(f"{url}/index.html?theme={name}")
                high = WebDriverWait(driver, 60).until(drawn)
                window(driver, width, high)
                time.sleep(2)  # charts, once more
                picture(driver, folder / f"dashboard-{name}-{width}.png")
                print(driver.get_log("browser"))
        driver.quit()


def drawn(driver: WebDriver) -> int:
    """The dashboard's height in pixels; 0 as long as it is not drawn."""
    return int(driver.execute_script("return document.getElementById('root').scrollHeight"))


if __name__ == "__main__":
    with served(build(Path(sys.argv[1]))) as url:
        shoot(url, Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs/images")
