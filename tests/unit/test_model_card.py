import json
from pathlib import Path

import pytest

from oea_server.engine import conflicts, model_card


@pytest.mark.parametrize(
    ("config", "experts", "k"),
    [
        ({"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8}, 128, 8),
        ({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}, 8, 2),
        (
            {
                "model_type": "qwen3_vl_moe",
                "text_config": {"num_experts": 128, "num_experts_per_tok": 8},
            },
            128,
            8,
        ),
    ],
)
def test_softmax_models_are_read(config: dict[str, object], experts: int, k: int) -> None:
    assert model_card.of(config) == model_card.ModelCard(experts, k, None)


def test_a_hub_name_is_left_to_later(tmp_path: Path) -> None:
    assert model_card.read_local("Qwen/Qwen3-30B-A3B") is None
    (tmp_path / "config.json").write_text("{broken")
    assert model_card.read_local(str(tmp_path)) is None


def test_the_demo_is_readable(tmp_path: Path) -> None:
    from oea_server.lab.demo.build import CONFIG

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert model_card.read_local(str(tmp_path)) == model_card.ModelCard(128, 8, None)


def test_conflicts_are_read_from_resolved_arguments_and_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert conflicts.find({"moe_runner_backend": "triton", "moe_a2a_backend": "none"}.get) == []
    assert len(conflicts.find({"enable_pdmux": True, "dllm_algorithm": "x"}.get)) == 2
    monkeypatch.setenv("SGLANG_SIMULATE_UNIFORM_EXPERTS", "1")
    assert conflicts.find(lambda option: None) == [
        "SGLANG_SIMULATE_UNIFORM_EXPERTS: overrides every routing decision; unset it"
    ]
