"""One schema of the knobs: a field that is added is in all that tell of it, with no other edit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field
from typer.testing import CliRunner

from oea_server.client.config_command import app
from oea_server.lab.reference import knobs
from oea_server.observe import change, page
from oea_server.schema_words import bounds, default, kinds
from oea_server.settings import LIVE, POLICIES, Settings, argument_parser, changed, live_names
from oea_server.settings.schema import properties
from tests.heard import Heard, hearing
from tests.unit.counted import state


class More(Settings):
    """Settings with a live knob that does not exist."""

    patience: int | None = Field(
        None,
        ge=1,
        le=9,
        description="steps that an expert stays awake",
        json_schema_extra={"live": True, "unset": "for ever"},
    )


def test_a_live_field_is_in_all_that_tell_of_knobs() -> None:
    assert live_names(More) == (*LIVE, "patience")
    schema = change.change_of(More).model_json_schema()
    assert schema["properties"]["patience"] == properties(More)["patience"]
    assert '"patience"' in page.html_of(schema)
    assert '"patience"' not in page.html()
    said = " ".join(argument_parser(More).format_help().split())
    assert "--oea-patience PATIENCE steps that an expert stays awake (from 1 to 9)" in said
    written = " ".join(knobs.entries(More)[-1].split())
    assert "`OEA_PATIENCE`; default for ever; from 1 to 9; changes while serving." in written
    assert "Steps that an expert stays awake." in written
    assert changed(More(), {"patience": 3}).model_dump()["patience"] == 3


def test_what_the_server_takes_is_what_the_documents_say() -> None:
    every = properties(Settings)
    assert list(every) == list(Settings.model_fields)
    assert change.SCHEMA["properties"] == {name: every[name] for name in LIVE}
    assert list(every["policy"]["choices"]) == sorted(POLICIES)


def test_each_knob_says_what_it_is_and_what_it_means_where_it_is_not_given() -> None:
    for name, knob in properties(Settings).items():
        assert knob["description"], name
        assert knob.get("live", False) is (name in LIVE), name
        assert "unset" in knob or "null" not in kinds(knob) or not knob.get("live"), name


def test_types_bounds_and_defaults_in_words() -> None:
    every = properties(Settings)
    assert kinds(every["k0"]) == {"integer", "string"}
    said = {name: (*bounds(every[name]), default(every[name])) for name in ("p", "k0", "share")}
    assert said == {
        "p": ("above 0 to 1", "1.0"),
        "k0": ("from 1 to 64", "auto"),
        "share": ("from 0 to below 1", "auto"),
    }
    assert (*bounds(every["tiers"]), default(every["tiers"])) == ("at most 1000 characters", "none")
    assert (bounds(every["policy"]), default(every["allow_inactive"])) == ([], "false")


def config(answer: Any) -> tuple[int, str]:
    """Exit status and words of `oea-server config knobs` at a server that answers so."""
    with hearing(Heard(answer=answer)) as server:
        done = CliRunner().invoke(app, ["knobs", "--url", server.url])
    return done.exit_code, done.output


def test_the_command_prints_what_the_server_tells_of_each_knob() -> None:
    schema = change.change_of(More).model_json_schema()
    settings = {**state()["settings"], "patience": None}
    status, said = config({**state(), "settings": settings, "schema": schema})
    lines = said.splitlines()
    assert status == 0
    assert lines[lines.index("patience: none (from 1 to 9)") + 1] == (
        "    Steps that an expert stays awake."
    )
    assert any(line.startswith("pool: fill (one of fill, union, budget)") for line in lines)


@pytest.mark.parametrize("schema", [None, {"properties": 3}, {"properties": {"k0": "long"}}])
def test_a_server_that_tells_no_schema_is_named(schema: Any) -> None:
    status, said = config({**state(), "schema": schema})
    assert status == 2
    assert "tells nothing of its knobs" in said
