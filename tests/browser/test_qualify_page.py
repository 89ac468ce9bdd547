"""The page of a judged record, as a browser shows it: in both themes, on any width, without a
network."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from oea_server.lab.qualify import judge, pages
from tests.browser.chromium import theme, window
from tests.unit.qualify.simulated import record

CONTRAST = """
const parse = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
const light = text => parse(text).map(v => v / 255)
  .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor
    if (!/, 0\\)$/.test(colour) && colour !== 'transparent') return colour
  }
}
const texts = document.querySelectorAll('h1, h2, p, li, dt, dd, th, td, summary');
return Math.min(...[...texts].map(each => {
  const [a, b] = [light(getComputedStyle(each).color), light(behind(each))].sort((x, y) => y - x)
  return (a + .05) / (b + .05)
}))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = record(200, candidates=("k0=1", "k0=8:1,6:2,4:3,share=0.2,mix=0.5"), discordance=0.2)
    for answer in made["answers"]:
        answer["text"] = "<script>document.title = 'run'</script>" + "long" * 300
    folder: Path = tmp_path_factory.mktemp("qualified")
    return pages.write(judge.judged(made), folder)[-1].as_uri()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_reads_well_in_both_themes(driver: WebDriver, address: str, colours: str) -> None:
    window(driver, 1280, 900)
    theme(driver, colours)
    driver.get(address)
    assert driver.title == "Qualified: demo, 2-core-x86_64"
    assert driver.execute_script(CONTRAST) >= 4.5
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 21, 23)") == (colours == "dark")
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_lies_beyond_its_edge(driver: WebDriver, address: str, width: int) -> None:
    window(driver, width, 900)
    theme(driver, "light")
    driver.get(address)
    driver.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )
    assert driver.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert driver.title == "Qualified: demo, 2-core-x86_64"
