"""The model that is served is the one that the command line names, however SGLang's parser lets it
be said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from oea_server_demo import MODEL

from oea_server import doctor, serve
from oea_server.command_line import completed, merged, model_of
from oea_server.settings import SettingsError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def served(*argv: str) -> tuple[str | None, list[str]]:
    """The model, and the command line that SGLang gets."""
    given = serve.command(serve.check(argv))
    return model_of(given), given


@pytest.mark.parametrize(
    "flag", ["--model-path", "--model", "--model-p", "--model-pa", "--model-pat"]
)
def test_every_spelling_of_the_flag_names_the_model(flag: str) -> None:
    for argv in ([flag, "some/model"], [f"{flag}=some/model"]):
        model, given = served(*argv, "--tp", "2")
        assert model == "some/model"
        assert str(MODEL) not in given
        # where SGLang's command looks
        assert any(each.split("=")[0] in ("--model-path", "--model") for each in given)


def test_the_first_word_names_the_model() -> None:
    assert served("some/model", "--tp", "2")[1][:4] == ["--model-path", "some/model", "--tp", "2"]


@pytest.mark.parametrize("name", ["model-path", "model_path", "model"])
@pytest.mark.parametrize("how", ["--config {}", "--config={}"])
def test_a_config_file_names_the_model(config: Path, name: str, how: str) -> None:
    config.write_text(f"{name}: some/model\ntp: 2\n")
    model, given = served(*how.format(config).split(" "))
    assert model == "some/model"
    assert str(MODEL) not in given
    assert given[given.index("--model-path") + 1] == "some/model"
    assert given[given.index("--config") + 1] == str(config)
    assert served("typed/model", "--config", str(config))[0] == "typed/model"
    assert served("--model", "typed/model", "--config", str(config))[0] == "typed/model"


def test_the_demo_is_served_where_nothing_names_a_model(config: Path) -> None:
    config.write_text("max-total-tokens: 4096\nlog-level: info\n")
    for argv in ([], ["--config", str(config)]):
        model, given = served(*argv)
        assert model == str(MODEL)
        assert ("--max-total-tokens" in given) == (not argv)


def test_a_config_file_is_judged_as_flags_are(config: Path, tmp_path: Path) -> None:
    config.write_text("enable-pdmux: true\ndp: 2\n")
    with pytest.raises(SettingsError, match="--enable-pdmux"):
        serve.check(["--config", str(config)])
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})
    )
    config.write_text(f"model: {tmp_path}\nenable-pdmux: false\n")
    with pytest.raises(SettingsError, match="no experts to route"):
        serve.check(["--config", str(config)])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("a: [", "not YAML"),
        ("- a\n", "not a mapping of SGLang's options"),
        ("3\n", "not a mapping of SGLang's options"),
        ("1: 2\n", "not a mapping of SGLang's options"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_one_line(
    config: Path, text: str | None, why: str
) -> None:
    if text is not None:
        config.write_text(text)
    with pytest.raises(SettingsError, match=why) as refused:
        serve.check(["--config", str(config)])
    assert str(refused.value).startswith(f"--config {config}: ")
    assert "\n" not in str(refused.value)


def test_an_empty_config_file_says_nothing(config: Path) -> None:
    config.write_text("")
    assert merged(["--config", str(config), "--tp", "2"]) == ["--config", str(config), "--tp", "2"]
    assert completed(["--tp", "2"]) == ["--tp", "2"]


def test_a_config_file_becomes_the_flags_that_sglang_makes_of_it(config: Path) -> None:
    config.write_text('a_b: 1\nc: true\nd: false\ne: [x, 2]\nf: {g: [1]}\nh: "y z"\ni: []\n')
    flags = merged(["--config", str(config)])[:-2]
    assert flags == ["--a-b", "1", "--c", "--e", "x", "2", "--f", '{"g": [1]}', "--h", "y z"]


def test_where_the_demo_model_is_not_installed_a_model_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "oea_server_demo", None)
    assert served("some/model")[0] == "some/model"
    with pytest.raises(SettingsError) as refused:
        serve.check([])
    line = str(refused.value)
    assert line.startswith(
        "no model is named (--model-path), and the demo model is not installed: pip install "
    )
    examined = doctor.look([])
    assert (examined.model, examined.problems) == ("unknown", [line])
