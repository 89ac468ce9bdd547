"""Tiers: what is written is read or refused by one line, and who may ask for which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from oea_server.engine import tier_start
from oea_server.routing.policy import EXACT
from oea_server.settings import Settings, SettingsError, read
from oea_server.tiers import binding, keys, table
from oea_server.tiers.binding import Admitted, Asker, Binding

TEXT = "gold: exact; silver: k0=5; bronze: auto"
TIERS = table.parse(TEXT)
HEADER = "x-oea-tier"
GOLD, SILVER, GATEWAY = "sk-gold", "sk-silver", "sk-gateway"
KEYS = {keys.hashed(GOLD): "gold", keys.hashed(SILVER): "silver", keys.hashed(GATEWAY): keys.ANY}
Headers = list[tuple[bytes, bytes]]

NOT_A_TIER = "is no tier, as 'gold: exact'"
NO_NAME = (
    "is no name for a tier: of a-z, 0-9, - and _, up to 20, beginning with a letter, and neither"
    " none nor other"
)
NO_PROMISE = "is none of exact, k0=5 (1 to 9999) and auto"
MALFORMED = (
    ("", f"tiers: '' {NOT_A_TIER}"),
    (" ; ", f"tiers: '' {NOT_A_TIER}"),
    ("gold", f"tiers: 'gold' {NOT_A_TIER}"),
    ("gold: exact;", f"tiers: '' {NOT_A_TIER}"),
    ("gold exact", f"tiers: 'gold exact' {NOT_A_TIER}"),
    (": exact", f"tiers: '' {NO_NAME}"),
    ("Gold: exact", f"tiers: 'Gold' {NO_NAME}"),
    ("1st: exact", f"tiers: '1st' {NO_NAME}"),
    ("a b: exact", f"tiers: 'a b' {NO_NAME}"),
    ('a"} 1\noea_x{b="c: exact', f"tiers: 'a\"}} 1\\\\noea_x{{b=\"c' {NO_NAME}"),
    ("größe: exact", f"tiers: 'gr\\xf6\\xdfe' {NO_NAME}"),
    ("none: exact", f"tiers: 'none' {NO_NAME}"),
    ("other: exact", f"tiers: 'other' {NO_NAME}"),
    ("a234567890123456789012: exact", f"tiers: 'a234567890123456789012' {NO_NAME}"),
    ("gold:", f"tiers: gold: '' {NO_PROMISE}"),
    ("gold: Exact", f"tiers: gold: 'Exact' {NO_PROMISE}"),
    ("gold: exact, silver: k0=5", f"tiers: gold: 'exact, silver: k0=5' {NO_PROMISE}"),
    ("gold: 5", f"tiers: gold: '5' {NO_PROMISE}"),
    ("gold: k0=0", f"tiers: gold: 'k0=0' {NO_PROMISE}"),
    ("gold: k0=-1", f"tiers: gold: 'k0=-1' {NO_PROMISE}"),
    ("gold: k0=5.0", f"tiers: gold: 'k0=5.0' {NO_PROMISE}"),
    ("gold: k0=99999", f"tiers: gold: 'k0=99999' {NO_PROMISE}"),
    ("gold: k0=1:8,16:3", f"tiers: gold: 'k0=1:8,16:3' {NO_PROMISE}"),
    ("gold: exact; gold: auto", "tiers: gold is there twice; name each tier once"),
    ("; ".join(f"t{i}: auto" for i in range(9)), "tiers: there are 9, above 8; leave some out"),
)


@pytest.mark.parametrize(("text", "line"), MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_list_of_tiers_is_one_line_before_anything_starts(text: str, line: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read({"tiers": text})
    assert str(refused.value) == line


def test_what_is_written_is_what_is_promised() -> None:
    assert TIERS == {"gold": EXACT, "silver": 5, "bronze": 0}
    assert [table.said(promise) for promise in TIERS.values()] == ["exact", "k0=5", "auto"]
    assert list(table.parse(" b :auto;a:k0=12")) == ["b", "a"]
    assert table.parse(None) == {}


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"default_tier": "gold"}, "default_tier=gold: no such tier; there are none"),
        (
            {"tiers": TEXT, "default_tier": "lead"},
            "default_tier=lead: no such tier; there are gold, silver, bronze",
        ),
        (
            {"tier_header": "X-OEA-Tier"},
            "tier_header=X-OEA-Tier: without tiers nothing can be bound to one; give tiers",
        ),
        (
            {"tier_keys": "keys"},
            "tier_keys=keys: without tiers nothing can be bound to one; give tiers",
        ),
        (
            {"tiers": TEXT, "tier_header": "X OEA"},
            "tier_header=X OEA: not a header's name of letters, digits and -, such as X-OEA-Tier",
        ),
        (
            {"tiers": TEXT, "tier_header": "Authorization"},
            (
                "tier_header=Authorization: this header means something else; name one of your own,"
                " such as X-OEA-Tier"
            ),
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(knobs: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(knobs)
    assert str(refused.value) == line


def test_a_tier_is_held_to_the_model_and_a_new_one_to_the_servers_floor() -> None:
    settings = Settings(tiers="low: k0=2; high: k0=9", k0="3")
    with pytest.raises(ValueError, match=r"tiers: high: k0=9 is above 8, the model's top k"):
        settings.check(k=8, num_experts=128)
    before = Settings(tiers="low: k0=2", k0="2")
    before.check(k=8, num_experts=128)
    before.check_new(8)
    after = Settings(tiers="low: k0=2", k0="4")
    after.check_new(8, before)  # the higher of both holds then
    with pytest.raises(
        ValueError, match=r"tiers: low: k0=2 is below 4, the least that this server takes"
    ):
        after.check_new(8)
    Settings(tiers="low: k0=2", k0="4", wish_floor=2).check_new(8)
    with pytest.raises(ValueError, match="low: k0=2 is below 3"):
        Settings(tiers="low: k0=2", k0="4", wish_floor=3).check_new(8)


def headers(key: str | None = None, tier: str | None = None, *more: tuple[bytes, bytes]) -> Headers:
    found = [(b"host", b"x"), *more]
    if key is not None:
        found.append((b"authorization", f"Bearer {key}".encode()))
    if tier is not None:
        found.append((HEADER.encode(), tier.encode()))
    return found


def who(bound: Binding, given: Headers, default: str | None = "bronze") -> Asker:
    return binding.asker(bound, given, default)


def got(bound: Binding, given: Headers, body: str | None = None, wished: int = 0) -> Admitted:
    return binding.admit(TIERS, who(bound, given), body, wished, 3)


FREE, BY_HEADER, BY_KEY = Binding(), Binding(HEADER), Binding(None, KEYS)
BOTH = Binding(HEADER, KEYS)


def test_where_nothing_binds_anybody_may_ask_for_any_tier_by_its_body_alone() -> None:
    assert got(FREE, headers()) == ("bronze", 0)
    assert got(FREE, headers(), "gold") == ("gold", EXACT)
    assert got(FREE, headers(tier="gold")) == ("bronze", 0)  # nobody has named a header
    assert got(FREE, headers(), wished=6) == ("bronze", 6)
    assert binding.admit(TIERS, who(FREE, headers(), None), None, 0, 3) == (None, 0)


def test_a_trusted_header_says_the_tier_and_its_body_may_only_ask_for_less() -> None:
    assert got(BY_HEADER, headers(tier="silver")) == ("silver", 5)
    assert got(BY_HEADER, headers(tier=" silver ")) == ("silver", 5)
    assert got(BY_HEADER, headers(tier="silver"), "bronze") == ("bronze", 0)
    assert got(BY_HEADER, headers()) == ("bronze", 0)
    assert got(BY_HEADER, headers(tier="silver"), wished=4) == ("silver", 5)  # a wish only adds


def test_a_key_says_the_tier() -> None:
    assert got(BY_KEY, headers(GOLD)) == ("gold", EXACT)
    assert got(BY_KEY, headers(GOLD), wished=EXACT) == ("gold", EXACT)
    assert got(BY_KEY, headers(GOLD), "silver") == ("silver", 5)
    assert got(BY_KEY, headers(SILVER)) == ("silver", 5)
    assert got(BY_KEY, headers("EMPTY")) == ("bronze", 0)  # what clients send where none is wanted
    assert got(BY_KEY, headers()) == ("bronze", 0)
    assert got(BY_KEY, headers(), wished=3) == ("bronze", 3)  # which everybody is guaranteed


def test_a_gateways_key_names_any_tier_and_other_keys_only_ask_by_the_header() -> None:
    assert got(BOTH, headers(GATEWAY, "gold")) == ("gold", EXACT)
    assert got(BOTH, headers(GATEWAY)) == ("bronze", 0)
    assert got(BOTH, headers(GOLD, "silver")) == ("silver", 5)
    assert got(BOTH, headers(SILVER, "bronze")) == ("bronze", 0)


SECOND = (HEADER.encode(), b"gold")
ABOVE = "is above tier bronze (auto), which is this request's by the default"
REFUSED: tuple[tuple[Binding, Headers, str | None, int, str], ...] = (
    (BY_KEY, headers(), "gold", 0, f"custom_params.oea.tier: gold {ABOVE}"),
    (BY_KEY, headers(), "silver", 0, f"custom_params.oea.tier: silver {ABOVE}"),
    (BY_KEY, headers(), None, EXACT, f"custom_params.oea: exact {ABOVE}"),
    (BY_KEY, headers(), None, 4, f"custom_params.oea: k0=4 {ABOVE}"),
    (BY_KEY, headers("wrong"), "gold", 0, f"custom_params.oea.tier: gold {ABOVE}"),
    (
        BY_KEY,
        headers(GOLD, None, (b"authorization", b"Bearer x")),
        "gold",
        0,
        f"custom_params.oea.tier: gold {ABOVE}",
    ),
    (
        BY_KEY,
        [(b"authorization", f"Basic {GOLD}".encode())],
        "gold",
        0,
        f"custom_params.oea.tier: gold {ABOVE}",
    ),
    (BY_KEY, headers(keys.hashed(GOLD)), "gold", 0, f"custom_params.oea.tier: gold {ABOVE}"),
    (
        BY_KEY,
        headers(SILVER),
        "gold",
        0,
        (
            "custom_params.oea.tier: gold is above tier silver (k0=5), which is this request's by"
            " its key"
        ),
    ),
    (
        BY_KEY,
        headers(SILVER),
        None,
        6,
        "custom_params.oea: k0=6 is above tier silver (k0=5), which is this request's by its key",
    ),
    (BY_HEADER, headers(), "gold", 0, f"custom_params.oea.tier: gold {ABOVE}"),
    (
        BY_HEADER,
        headers(tier="silver"),
        "gold",
        0,
        (
            "custom_params.oea.tier: gold is above tier silver (k0=5), which is this request's by"
            " header x-oea-tier"
        ),
    ),
    (
        BY_HEADER,
        headers(None, "silver", SECOND),
        None,
        0,
        "x-oea-tier: the header is there 2 times; send it once",
    ),
    (
        BY_HEADER,
        headers(None, "gold", SECOND),
        None,
        0,
        "x-oea-tier: the header is there 2 times; send it once",
    ),
    (
        BY_HEADER,
        headers(tier="silver, gold"),
        None,
        0,
        (
            "header x-oea-tier: 'silver, gold' is no tier of this server; there are gold, silver,"
            " bronze"
        ),
    ),
    (
        BY_HEADER,
        headers(tier=""),
        None,
        0,
        "header x-oea-tier: '' is no tier of this server; there are gold, silver, bronze",
    ),
    (
        BY_HEADER,
        headers(tier="GOLD"),
        None,
        0,
        "header x-oea-tier: 'GOLD' is no tier of this server; there are gold, silver, bronze",
    ),
    (BOTH, headers(None, "gold"), None, 0, f"the header: gold {ABOVE}"),
    (
        BOTH,
        headers(SILVER, "gold"),
        None,
        0,
        "the header: gold is above tier silver (k0=5), which is this request's by its key",
    ),
    (
        BOTH,
        headers(GOLD, "gold"),
        "silver",
        0,
        "custom_params.oea.tier: 'silver', and the header says another tier: ask for one",
    ),
    (
        FREE,
        headers(),
        "lead\n",
        0,
        (
            "custom_params.oea.tier: 'lead\\\\n' is no tier of this server; there are gold, silver,"
            " bronze"
        ),
    ),
)


@pytest.mark.parametrize(
    ("bound", "given", "body", "wished", "line"), REFUSED, ids=range(len(REFUSED))
)
def test_nobody_promotes_itself(
    bound: Binding, given: Headers, body: str | None, wished: int, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        got(bound, given, body, wished)


@pytest.mark.parametrize(
    "name", [b"X_OEA_Tier", b"x_oea_tier", b"X-OEA-Tier ", b"XOEATier", b"X-Oea-Tiers"]
)
def test_a_header_of_another_name_says_nothing(name: bytes) -> None:
    assert got(BY_HEADER, [(name, b"gold")]) == ("bronze", 0)


def test_the_name_is_read_in_any_case() -> None:
    assert got(BY_HEADER, [(b"X-OEA-TIER", b"gold")]) == ("gold", EXACT)
    with pytest.raises(ValueError, match="2 times"):
        got(BY_HEADER, [(b"X-OEA-TIER", b"bronze"), (b"x-oea-tier", b"gold")])


def test_where_the_server_guarantees_as_much_asking_for_it_is_no_more() -> None:
    assert binding.admit(TIERS, who(BY_KEY, headers()), "silver", 0, 5) == ("silver", 5)


def test_a_tier_that_is_gone_is_said_to_who_is_bound_to_it() -> None:
    with pytest.raises(
        ValueError, match="its key: 'gold' is no tier of this server; there are silver"
    ):
        binding.admit({"silver": 5}, who(BY_KEY, headers(GOLD), None), None, 0, 3)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes | str], str]:
    def write_file(text: bytes | str) -> str:
        path = tmp_path / "tier-keys"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_file


def test_keys_are_read_from_a_file_of_their_hashes(write: Callable[[str], str]) -> None:
    path = write(
        f"# ours\n\ngold: {keys.hashed(GOLD)}\n  gold : {keys.hashed('2nd')} "
        f" \n*:{keys.hashed(GATEWAY)}\n"
    )
    assert keys.read(path) == {
        keys.hashed(GOLD): "gold",
        keys.hashed("2nd"): "gold",
        keys.hashed(GATEWAY): "*",
    }
    assert binding.knows(Binding(None, keys.read(path)), headers("2nd"))
    assert not binding.knows(Binding(None, keys.read(path)), headers("3rd"))
    assert not binding.knows(Binding(), headers("2nd"))


OF_GOLD = keys.hashed(GOLD)
NO_HASH = "comes no SHA-256 in 64 small hex digits (printf %s KEY | sha256sum)"
WRONG: tuple[tuple[bytes | str, str], ...] = (
    ("", "it binds no key; write a line, gold: SHA-256"),
    ("# nothing\n", "it binds no key; write a line, gold: SHA-256"),
    ("gold: sk-a-secret\n", f"line 1: after gold: {NO_HASH}"),
    ("gold\n", f"line 1: after gold: {NO_HASH}"),
    (f"gold: {OF_GOLD.upper()}\n", f"line 1: after gold: {NO_HASH}"),
    (f"gold: {OF_GOLD}0\n", f"line 1: after gold: {NO_HASH}"),
    (f"#\nGold: {OF_GOLD}\n", "line 2: 'Gold' is neither a tier nor *"),
    (f"{OF_GOLD}: gold\n", f"line 1: '{OF_GOLD[:29]}\\u2026' is neither a tier nor *"),
    (
        f"gold: {OF_GOLD}\nsilver: {OF_GOLD}\n",
        "line 2: this key is bound to gold already; leave one line out",
    ),
    (
        f"gold: {keys.NOTHING}\n",
        "line 1: the hash of an empty key, which no client can send; hash the key itself",
    ),
    (b"gold: \xff\n", "not a text file; write a line for each key, gold: SHA-256"),
    ("#" * (1 << 20) + "#", "above 1048576 bytes; is it another file?"),
)


@pytest.mark.parametrize(("text", "line"), WRONG, ids=range(len(WRONG)))
def test_a_file_that_binds_no_keys_is_one_line_that_shows_none(
    write: Callable[[bytes | str], str], text: bytes | str, line: str
) -> None:
    path = write(text)
    with pytest.raises(ValueError, match=f"{re.escape(line)}$") as refused:
        keys.read(path)
    assert str(refused.value).startswith(f"tier_keys={path}: ")
    assert "secret" not in str(refused.value)
    assert tier_start.problems(Settings(tiers=TEXT, tier_keys=path)) == [str(refused.value)]


def test_what_binds_has_to_fit_the_tiers(write: Callable[[str], str], tmp_path: Path) -> None:
    path = write(f"lead: {OF_GOLD}\n")
    said = f"tier_keys={path}: lead is no tier; there are gold, silver, bronze"
    assert tier_start.problems(Settings(tiers=TEXT, tier_keys=path)) == [said]
    path = write(f"*: {OF_GOLD}\n")
    said = f"tier_keys={path}: a key for * names tiers by a header; say which (tier_header)"
    assert tier_start.problems(Settings(tiers=TEXT, tier_keys=path)) == [said]
    assert tier_start.problems(Settings(tiers=TEXT, tier_keys=path, tier_header="X-OEA-Tier")) == []
    assert tier_start.problems(Settings(tiers=TEXT), metrics=False) == [
        f"tiers: {tier_start.METRICS}"
    ]
    gone = str(tmp_path / "gone")
    said = f"tier_keys={gone}: No such file or directory"
    assert tier_start.problems(Settings(tiers=TEXT, tier_keys=gone)) == [said]
    assert tier_start.problems(Settings()) == []


def test_no_setting_shows_a_key(write: Callable[[str], str]) -> None:
    settings = Settings(tiers=TEXT, tier_keys=write(f"gold: {OF_GOLD}\n"))
    assert GOLD not in str(settings)
    assert OF_GOLD not in str(settings)
    assert "tier_keys" not in settings.live()


def test_nonsense_of_the_right_type_is_no_setting_either() -> None:
    with pytest.raises(ValidationError):
        Settings(tiers="a: auto" * 1000)
