from pathlib import Path

import pytest
from pydantic import ValidationError

from oea_server.doctor import policy_fact
from oea_server.engine.model_card import ModelCard
from oea_server.settings import Settings, SettingsError, argument_parser, read, split_flags


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"OEA_{name.upper()}", raising=False)


def test_flags_are_taken_out_and_the_rest_is_untouched() -> None:
    given, rest = split_flags(
        ["--tp", "2", "--oea-k0", "1:8,16:3", "--model-path", "m", "--oea-p=0.9", "-x", "--flag"]
    )
    assert given == {"k0": "1:8,16:3", "p": "0.9"}
    assert rest == ["--tp", "2", "--model-path", "m", "-x", "--flag"]


def test_flags_win_over_variables_and_variables_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OEA_K0", "5")
    monkeypatch.setenv("OEA_MIN_BATCH", "4")
    settings = read({"k0": "3"})
    assert (settings.k0, settings.min_batch, settings.p) == ("3", 4, 1.0)


def test_settings_survive_the_trip_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        {
            "k0": "1:8,16:3; 0-3=8",
            "share": "16:.1",
            "mix": "5e-1",
            "k_max": "8",
            "policy": "oea",
            "allow_inactive": "true",
        }
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert read() == settings


def test_every_knob_is_a_flag_with_help() -> None:
    text = argument_parser().format_help()
    for name in Settings.model_fields:
        assert f"--oea-{name.replace('_', '-')}" in text
        assert Settings.model_fields[name].description


def test_auto_follows_the_models_top_k() -> None:
    assert str(read().policy_for(8).k0) == "1:8,2:5,4:4,16:3"
    assert str(read().policy_for(4).k0) == "1:4,2:3,4:2,16:2"


def test_under_a_budget_auto_guarantees_the_first_choice_only() -> None:
    policy = Settings(pool="budget", rank_budget=7).policy_for(8)
    assert (str(policy.k0), policy.pool, policy.rank_budget) == ("1", "budget", 7)
    assert str(Settings(pool="budget", rank_budget=7, k0="2").policy_for(8).k0) == "2"
    assert Settings().policy_for(8).pool == "fill"


def numbers(settings: Settings, batch: int, layer: int = 0) -> tuple[int, float, float]:
    found = settings.policy_for(8).numbers(batch, layer, k=8, num_experts=64)
    return found.floor, found.share, found.mix


def test_share_and_mix_are_numbers_or_follow_the_batch() -> None:
    assert numbers(Settings(k0="3"), 16) == (3, 0.0, 1.0)
    assert numbers(Settings(k0="3", share="0.1", mix="0.5"), 16) == (3, 0.1, 0.5)
    steps = Settings(k0="8", share="4:0.1,16:0.13; 5=0.2", mix="16:0.5")
    assert [numbers(steps, batch) for batch in (2, 4, 16)] == [
        (8, 0.0, 1.0),
        (8, 0.1, 1.0),
        (8, 0.13, 0.5),
    ]
    assert numbers(steps, 16, layer=5) == (8, 0.2, 0.5)
    # min_batch: vanilla
    assert numbers(Settings(k0="8", share="0.1", mix="0.5"), 1) == (8, 0.0, 1.0)


def test_doctor_tells_them() -> None:
    said = policy_fact(Settings(k0="8", share="16:0.13", mix="0.5"), None, ModelCard(128, 8))
    assert said == "oea, k0 8, share 16:0.13, mix 0.5, p 1.0, k_max 8, max_rank all"


def test_under_shadow_the_policy_that_is_counted_has_them() -> None:
    shadow = Settings(policy="shadow", k0="8", share="0.1", mix="0.5").shadow_for(8)
    assert shadow is not None
    assert (shadow.share, shadow.mix) == (0.1, 0.5)


def test_a_share_beside_a_k0_that_a_budget_has_set_to_1_is_refused() -> None:
    with pytest.raises(
        ValidationError,
        match=r"share=0\.2 has no effect beside k0=auto, which is 1 under pool=budget",
    ):
        Settings(pool="budget", rank_budget=7, share="0.2")
    assert numbers(Settings(pool="budget", rank_budget=7, k0="8", share="0.2"), 16) == (8, 0.2, 1.0)


def test_a_mixture_where_weights_are_not_divided_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mix=0\.5 has no effect: this model does not divide weights by their sum"
    ):
        Settings(mix="0.5").check(k=8, num_experts=64, renormalize=False)
    Settings(mix="0.5").check(k=8, num_experts=64, renormalize=True)
    Settings(share="0.1", mix="1").check(k=8, num_experts=64, renormalize=False)


@pytest.mark.parametrize("name", ["OEA_KO", "OEA_POLICYS", "OEA_WHATEVER"])
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError, match=f"{name}: no such knob"):
        read()


def test_the_message_names_the_variable_when_that_is_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OEA_P", "2")
    with pytest.raises(SettingsError, match="OEA_P=2: input should be less than or equal to 1"):
        read()


def test_a_calibrated_schedule_is_what_auto_means(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    path.write_text('{"k0": "1:8,4:5,16:2", "k": 8}')
    settings = Settings(schedule=str(path))
    assert str(settings.policy_for(8).k0) == "1:8,4:5,16:2"
    assert str(Settings(schedule=str(path), k0="3").policy_for(8).k0) == "3"
    path = tmp_path / "shares.json"
    path.write_text('{"k0": "8", "share": "1:0.0,16:0.13", "mix": "1:1.0,16:0.5", "k": 8}')
    settings = Settings(schedule=str(path))
    assert [numbers(settings, batch) for batch in (2, 16)] == [(8, 0.0, 1.0), (8, 0.13, 0.5)]
    assert numbers(Settings(schedule=str(path), share="0", mix="0.7"), 16) == (8, 0.0, 0.7)
    with pytest.raises(ValueError, match="it is for a model of top-8, and this one's is 6"):
        settings.check(k=6, num_experts=64)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not a file of"),
        ('{"k0": "8"}', "not a file of"),
        ('{"k0": "8,4:3", "k": 8}', "is not BATCH:K0"),
        ('{"k0": "8", "k": 8, "share": "1:0,4:1"}', "share 1.0 is outside 0 <= share < 1"),
        ('{"k0": "8", "k": 8, "mix": "half"}', "'half' is not BATCH:MIX"),
    ],
)
def test_a_file_that_is_no_schedule(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "schedule.json"
    path.write_text(text)
    with pytest.raises(ValidationError, match=f"schedule={path}: .*{why}"):
        Settings(schedule=str(path))
