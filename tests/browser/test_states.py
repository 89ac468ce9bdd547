"""The page in the states that are slow or rare on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.browser.chromium import theme, window
from tests.browser.page import Page
from tests.browser.stub import Stub
from tests.browser.world import DEFAULTS, World

Serve = Callable[..., Stub]
FITS = "return document.documentElement.scrollWidth <= window.innerWidth"
UNLABELLED = """return [...document.querySelectorAll('input, select')]
    .filter((field) => !field.labels.length || !field.labels[0].textContent.trim())
    .map((field) => field.id)"""


def test_busy_says_what_is_read_and_what_would_be(page: Page, serve: Serve) -> None:
    serve(World())
    words = page.text("headline")
    assert words.startswith("A decode step reads 3")
    assert "of 128 experts per layer; without batch-aware routing it would read 7" in words
    assert words.endswith("\u00a0% less to read.")
    marks = page.script(
        "return [...document.querySelectorAll('#experts i')].map((mark) => mark.className)"
    )
    assert len(marks) == 128
    assert 36 <= marks.count("mark read") <= 40
    assert 35 <= marks.count("mark saved") <= 43
    assert page.text("figures").splitlines()[1] == "16.0"
    assert not page.shown("chart-busiest")
    assert page.errors() == []


def test_drafts_are_shown_where_there_are_some(page: Page, serve: Serve) -> None:
    serve(World())
    assert "Tokens a step gives each" not in page.text("figures")
    serve(World(drafts=True))
    assert page.text("figures").splitlines()[-6:] == [
        *(
            "Requests in a step",
            "4.0",
            "Tokens a step gives each",
            "2.25",
            "Read for rejected drafts",
            "6.5 experts",
        )
    ]
    assert page.errors() == []


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", ["light", "dark"])
def test_fits_and_is_drawn_in_both_themes(
    page: Page, serve: Serve, size: tuple[int, int], name: str
) -> None:
    window(page.driver, *size)
    theme(page.driver, name)
    serve(World(layers=94, ranks=8, age=600))
    assert page.script(FITS)
    assert page.shown("chart-busiest")
    background = page.script("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 21, 23)") == (name == "dark")
    assert page.until(lambda: shades(page) > 10, "a heat map whose layers differ")
    assert page.errors() == []


def shades(page: Page) -> int:
    """Different colours down one second of the heat map, axes left out."""
    return int(
        page.script("""const canvas = document.querySelector("#chart-layers canvas");
            const left = Math.round(canvas.width * 0.4);
            const { data } = canvas.getContext("2d").getImageData(left, 20, 1, 240);
            return new Set(new Uint32Array(data.buffer)).size""")
    )


def test_the_theme_can_be_chosen(page: Page, serve: Serve) -> None:
    serve(World())
    background = "return getComputedStyle(document.body).backgroundColor"
    before = page.script(background)
    assert page.text("theme") == "Dark theme"
    page.find("theme").click()
    assert page.script(background) != before
    page.find("theme").click()
    assert page.script(background) == before


def test_idle_without_a_single_point(page: Page, serve: Serve) -> None:
    stub = serve(World(busy=False, age=0))
    assert page.text("headline").startswith(
        "No decode step in the last minute. Since the start a step read 38 of 128"
    )
    assert "None since the start." in page.text("bypassed")
    stub.world.age, stub.world.busy = 60, True
    page.until(
        lambda: page.text("headline").startswith("A decode step reads"), "numbers after idling"
    )
    assert page.errors() == []


def test_tiers_are_rows_and_nothing_where_there_are_none(page: Page, serve: Serve) -> None:
    stub = serve(World())
    assert not page.find("tiers-card").is_displayed()
    gold = {
        "tier": "gold",
        "promise": "exact",
        "default": False,
        "mass_kept": 1.0,
        "broken": 0,
        "tpot_ms": 25.04,
    }
    old = {
        "tier": "old",
        "promise": None,
        "default": False,
        "mass_kept": None,
        "broken": 2,
        "tpot_ms": None,
    }
    counts = {"tokens": 1200, "requests": 30}
    stub.world.tiers = [{**gold, **counts}, {**old, **counts, "default": True}]
    page.until(lambda: page.find("tiers-card").is_displayed(), "tiers")
    rows = [row.replace("\xa0", " ").split("\t") for row in page.text("tiers").splitlines()[1:]]
    assert rows == [
        ["gold", "exact", "100 %", "0", "25.0 ms", "1,200", "30"],
        ["old (default)", "gone", "–", "2", "–", "1,200", "30"],
    ]
    assert page.errors() == []


def test_shadow_shows_the_prediction(page: Page, serve: Serve) -> None:
    serve(World(settings={**DEFAULTS, "policy": "shadow"}))
    words = page.text("headline")
    assert words.startswith("Serving vanilla. With these knobs OEA would read 3")
    assert "instead of 7" in words
    assert "OEA would" in page.find("chart-read").text
    assert page.text("switch") == "Turn OEA on"


def test_a_fixed_server_offers_nothing(page: Page, serve: Serve) -> None:
    reason = "SGLang's own kernels are in the captured CUDA graphs"
    serve(World(policies=[], fixed=reason, settings={**DEFAULTS, "policy": "vanilla"}))
    assert page.text("fixed") == reason
    assert not page.find("switch").is_enabled()
    assert not page.find("apply").is_enabled()
    assert not page.find("knob-k0").is_enabled()


def test_only_policies_that_can_be_switched_to_are_offered(page: Page, serve: Serve) -> None:
    serve(World(policies=["oea", "pruned"], fixed="no vanilla here"))
    options = page.script(
        "return [...document.getElementById('knob-policy').options].map((option) => option.value)"
    )
    assert options == ["oea", "pruned"]
    assert not page.find("switch").is_enabled()
    assert page.find("apply").is_enabled()


def test_a_limited_router_is_said(page: Page, serve: Serve) -> None:
    serve(World(reason="layers 0-3: biased router"))
    assert page.text("limits") == "Some layers run the model's own top k: layers 0-3: biased router"


def test_a_reason_that_the_headline_says_is_not_said_twice(page: Page, serve: Serve) -> None:
    serve(
        World(
            active=False, reason="the policy is vanilla", settings={**DEFAULTS, "policy": "vanilla"}
        )
    )
    assert page.text("headline").startswith("OEA is off.")
    assert not page.shown("limits")


def test_texts_of_the_server_stay_texts(page: Page, serve: Serve) -> None:
    bait = "<img src=x onerror='document.title=\"taken\"'><b>bold</b>"
    stub = serve(World(reason=bait, fixed=bait))
    stub.refuse = (409, bait)
    page.find("switch").click()
    page.until(lambda: bait in page.text("switch-answer"), "the refusal")
    assert bait in page.text("limits")
    assert page.text("fixed") == bait
    assert page.script("return document.querySelectorAll('main img, .notice img').length") == 0


def test_every_field_has_a_label_and_every_plot_words(page: Page, serve: Serve) -> None:
    serve(World(ranks=2))
    assert page.script(UNLABELLED) == []
    words = page.script(
        "return [...document.querySelectorAll('.plot')].map((plot) =>"
        " plot.getAttribute('aria-label') ?? '')"
    )
    assert len(words) == 7
    assert all(len(text) > 20 for text in words if not text.startswith("Experts read, layer")), (
        words
    )


def test_changes_are_marked(page: Page, serve: Serve) -> None:
    serve(World())
    plain = ink(page)
    now = int(time.time())
    serve(World(version=2, changes={now - 200: (1, "vanilla"), now - 150: (2, "oea")}))
    assert ink(page) > plain + 40


def ink(page: Page) -> int:
    """Pixels in the colour of the marks, which nothing else is drawn in."""
    return int(
        page.script("""const canvas = document.querySelector("#chart-read canvas");
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let dark = 0;
            for (let i = 0; i < data.length; i += 4)
              dark += data[i + 3] > 120 && data[i] < 60 && data[i + 1] < 60;
            return dark""")
    )
