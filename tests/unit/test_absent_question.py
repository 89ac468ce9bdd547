"""What `doctor --on` is asked: its flags, the model's config by any name, and what is taken for
what is not here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oea_server.absent import question
from oea_server.absent.cards import CARDS
from oea_server.settings import SettingsError

CONFIG = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "any name.txt"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def test_a_card_a_file_of_any_name_and_the_flags_as_they_are_typed(
    file: str, tmp_path: Path
) -> None:
    asked = question.read(["--tp", "8", "--on=H200", "--model-config", file, "--oea-k0", "5"])
    assert (asked.card, asked.argv, asked.config) == (
        CARDS["h200"],
        ["--tp", "8", "--oea-k0", "5"],
        CONFIG,
    )
    argv, notes = question.laid_out(asked, tmp_path / "there")
    assert (argv[-2], notes) == ("--model-path", [])
    assert json.loads((Path(argv[-1]) / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize(
    "spelled", [["some/model", "--tp", "8"], ["--tp", "8", "--model=some/model"]]
)
def test_the_file_counts_and_not_the_model_that_is_named_beside_it(
    file: str, spelled: list[str]
) -> None:
    asked = question.read([*spelled, "--on", "b200", "--model-config", file])
    assert (asked.argv, asked.model) == (["--tp", "8"], file)


def test_a_folder_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert question.read(["--on", "b200", "--model-path", str(tmp_path)]).config == CONFIG


def test_a_draft_model_that_is_not_here_is_a_note(file: str, tmp_path: Path) -> None:
    asked = question.read(
        ["--on", "h200", "--model-config", file, "--speculative-draft-model-path", "some/draft"]
    )
    argv, notes = question.laid_out(asked, tmp_path / "there")
    draft = Path(argv[argv.index("--speculative-draft-model-path") + 1])
    assert (draft / "config.json").is_file()
    assert notes == ["the draft model some/draft is not here: taken for a Llama of one layer"]


def test_code_of_the_models_own_is_not_read_and_that_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({**CONFIG, "auto_map": {"AutoConfig": "code.Config"}})
    )
    asked = question.read(["--on", "h200", "--model-path", str(tmp_path)])
    assert asked.config == CONFIG
    assert "own Python code is not read" in asked.notes[0]


BAD = {
    "--on": "expected one argument",
    "--on h20": "--on h20: not a card that is known; known are h100, h200, b200",
    "--on h200": "no model is named",
    "--on h200 --model-path no/such-model": (
        "no/such-model is not on this machine, and nothing is downloaded"
    ),
    "--on h200 --model-config": "expected one argument",
    "--on h200 --model-config no-such-file": (
        "--model-config no-such-file: No such file or directory"
    ),
    "--on h200 --model-config {tmp}": "Is a directory",
    "--on h200 --model-config {tmp}/text": "text: not JSON: Expecting value",
    "--on h200 --model-config {tmp}/list": "list: not a JSON object",
    "--on h200 --model-config {tmp}/bytes": "bytes: not JSON: ",
}


@pytest.mark.parametrize("flags", BAD)
def test_what_is_no_question_is_said_in_one_line(tmp_path: Path, flags: str) -> None:
    for name, content in {"text": b"hello", "list": b"[1]", "bytes": b"\xff\xfe\x00"}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError) as error:
        question.read(flags.format(tmp=tmp_path).split())
    assert BAD[flags] in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_says_so_and_ends_with_two() -> None:
    command = [sys.executable, "-m", "oea_server", "doctor", "--on", "h20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("oea-server: --on h20: not a card that is known")


def test_doctor_without_a_card_is_doctor() -> None:
    assert not question.asked_elsewhere(["--model-path", "x", "--tp", "8"])
    assert question.asked_elsewhere(["--on=h200"])


def test_each_card_says_where_its_facts_are_from() -> None:
    assert set(CARDS) == {"h100", "h200", "b200", "b300", "gb200", "gb300", "rtx6000"}
    assert all(card.source for card in CARDS.values())
    assert {card.sm for card in CARDS.values()} == {90, 100, 103, 120}
