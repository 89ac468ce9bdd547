import pytest
import torch
import torch.nn.functional as F

from oea_server.engine.cpu_experts import run_experts


def slow(
    x: torch.Tensor, w13: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """One token and one expert at a time, in float64."""
    out = torch.zeros(x.shape, dtype=torch.float64)
    for i in range(len(x)):
        for weight, expert in zip(weights[i].tolist(), ids[i].tolist(), strict=True):
            if expert >= 0 and weight:
                gate, up = (w13[expert].double() @ x[i].double()).chunk(2)
                out[i] += weight * (w2[expert].double() @ (F.silu(gate) * up))
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("batch", [0, 1, 3, 16, 37, 300])
def test_agrees_with_one_expert_at_a_time(dtype: torch.dtype, tolerance: float, batch: int) -> None:
    torch.manual_seed(batch)
    experts, hidden, inner, k = 12, 32, 24, 4
    x = torch.randn(batch, hidden).to(dtype)
    w13 = (torch.randn(experts, 2 * inner, hidden) / hidden**0.5).to(dtype)
    w2 = (torch.randn(experts, hidden, inner) / inner**0.5).to(dtype)
    weights = torch.rand(batch, k)
    ids = torch.randint(-1, experts, (batch, k), dtype=torch.int32)
    weights[torch.rand(batch, k) < 0.2] = 0.0
    ours = run_experts(x, w13, w2, weights, ids)
    assert ours.dtype == dtype
    expected = slow(x, w13, w2, weights, ids)
    assert (ours.double() - expected).norm() <= tolerance * max(1.0, float(expected.norm()))


@pytest.mark.parametrize(("weights", "ids"), [([[0.0, 0.0]], [[3, 1]]), ([[0.5, 0.5]], [[-1, -1]])])
def test_nothing_to_do_reads_nothing(weights: list[list[float]], ids: list[list[int]]) -> None:
    poison = torch.full((4, 8, 6), float("nan"))
    out = run_experts(torch.ones(1, 6), poison, poison[:, :6, :4], torch.tensor(weights), torch.tensor(ids))
    assert torch.equal(out, torch.zeros(1, 6))


def test_unused_slots_and_other_ranks_experts_are_not_read() -> None:
    torch.manual_seed(0)
    w13, w2 = torch.randn(4, 8, 6), torch.randn(4, 6, 4)
    w13[2:], w2[2:] = float("nan"), float("nan")
    x = torch.randn(2, 6)
    weights = torch.tensor([[0.7, 0.3, 0.0], [1.0, 0.5, 0.0]])
    ids = torch.tensor([[0, 1, 3], [1, -1, 2]])
    assert not run_experts(x, w13, w2, weights, ids).isnan().any()
