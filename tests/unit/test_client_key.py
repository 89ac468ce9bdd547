"""Where a client's key comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from oea_server.client import key

SERVERS = {"OEA_ADMIN_KEY": "admin", "OEA_API_KEY": "api"}


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        (None, {}, None),
        ("typed", {"OEA_KEY": "own", **SERVERS}, "typed"),
        (None, {"OEA_KEY": "own", **SERVERS}, "own"),
        (None, {"OEA_KEY": "", **SERVERS}, "admin"),
        (None, SERVERS, "admin"),
        (None, {"OEA_API_KEY": "api"}, "api"),
        (None, {"OEA_ADMIN_KEY_FILE": "FILE", "OEA_API_KEY": "api"}, "filed"),
        (None, {"OEA_API_KEY_FILE": "FILE"}, "filed"),
        (None, {"OPENAI_API_KEY": "somebody's"}, None),
    ],
)
def test_the_nearest_place_counts(
    given: str | None, environ: dict[str, str], found: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("filed\n")
    environ = {name: value.replace("FILE", str(file)) for name, value in environ.items()}
    assert key.find(given, None, environ) == found


@pytest.mark.parametrize(("text", "found"), [("k", "k"), ("k\n", "k"), ("k\r\n", "k")])
def test_a_file_comes_before_variables_and_loses_one_newline(
    text: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(text.encode())
    assert key.find(None, tmp_path / "key", {"OEA_KEY": "own"}) == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "an empty key"),
        (b"\n", "an empty key"),
        (b"k\n\n", "printable ASCII"),
        (b"a\nb\n", "printable ASCII"),
        ("clé".encode(), "printable ASCII"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_a_file_without_a_key_is_one_line(content: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=why) as refused:
        key.find(None, file, {})
    assert str(refused.value).startswith(f"--key-file={file}: ")
    assert len(str(refused.value).splitlines()) == 1


def test_bad_keys_are_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^--key: ") as typed:
        key.find("secret\nX-Header: 1", None, {})
    with pytest.raises(ValueError, match=r"^OEA_KEY: ") as named:
        key.find(None, None, {"OEA_KEY": "sécret"})
    assert "cret" not in f"{typed.value}{named.value}"


def test_two_places_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--key and --key-file"):
        key.find("a", tmp_path / "key", {})
