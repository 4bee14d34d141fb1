"""The chunked head compared with full logits in float64."""

import pytest
import torch
from torch.nn import functional

from finetune_data.memory.activations import CHUNK_BYTES
from finetune_trainer.engine.head import Head, chunk

VOCABULARY, WIDTH, TARGETS = 50, 8, 70

KINDS = [(None, 1.0), (None, 0.25), (3.0, 1.0), (5.0, 0.5)]


def linear(dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(3)
    return torch.nn.Linear(WIDTH, VOCABULARY, bias=False).to(dtype)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    hidden = torch.randn(TARGETS, WIDTH, generator=random) * 3
    targets = torch.randint(0, VOCABULARY, (TARGETS,), generator=random)
    return hidden, targets, torch.rand(TARGETS, generator=random, dtype=torch.float64)


def truth(
    softcap: float | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, nll, and the gradients of the hidden states and the weights."""
    hidden, targets, weights = inputs()
    wide = hidden.double().requires_grad_()
    matrix = linear().weight.detach().double().requires_grad_()
    logits = wide @ matrix.T * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    nll = functional.cross_entropy(logits, targets, reduction="none")
    loss = (weights * nll).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert wide.grad is not None
    assert matrix.grad is not None
    return loss.detach(), nll.detach(), wide.grad, matrix.grad


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 32 * 4 * VOCABULARY)  # three, the last not full


@pytest.mark.parametrize(("softcap", "scale"), KINDS)
def test_loss_and_gradients_equal_those_of_full_logits(softcap: float | None, scale: float) -> None:
    hidden, targets, weights = inputs()
    hidden.requires_grad_()
    layer = linear()
    found, nll, right = Head(layer, softcap=softcap, scale=scale)(hidden, targets, weights)
    (found * 0.5).backward()
    loss, all_nll, grad_hidden, grad_weight = truth(softcap, scale)
    assert hidden.grad is not None
    assert layer.weight.grad is not None
    assert float(found.detach()) == pytest.approx(float(loss), rel=1e-6)
    assert torch.allclose(nll.double(), all_nll, rtol=1e-5, atol=1e-5)
    assert torch.allclose(hidden.grad.double(), grad_hidden / 2, rtol=1e-4, atol=1e-6)
    assert torch.allclose(layer.weight.grad.double(), grad_weight / 2, rtol=1e-4, atol=1e-6)
    wanted = (hidden.detach() @ layer.weight.detach().T).argmax(-1) == targets
    assert right.tolist() == wanted.tolist()


def test_a_frozen_head_has_no_gradient_but_its_inputs_do() -> None:
    hidden, targets, weights = inputs()
    hidden.requires_grad_()
    layer = linear().requires_grad_(False)
    Head(layer, softcap=None, scale=1.0)(hidden, targets, weights)[0].backward()
    assert layer.weight.grad is None
    assert hidden.grad is not None
    assert torch.allclose(hidden.grad.double(), truth(None, 1.0)[2], rtol=1e-4, atol=1e-6)


def test_without_a_gradient_the_numbers_are_the_same() -> None:
    hidden, targets, weights = inputs()
    layer = Head(linear(), softcap=None, scale=1.0)
    before = hidden.clone()
    with torch.no_grad():
        found = layer(hidden, targets, weights)
    assert torch.equal(hidden, before)
    assert float(found[0]) == pytest.approx(float(truth(None, 1.0)[0]), rel=1e-6)


def test_without_targets_the_gradient_is_zero() -> None:
    layer = linear()
    hidden = torch.zeros(0, WIDTH, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    found, nll, right = Head(layer, softcap=None, scale=1.0)(
        hidden, nothing, torch.zeros(0, dtype=torch.float64)
    )
    found.backward()
    assert (float(found.detach()), len(nll), len(right)) == (0, 0, 0)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_in_bf16_only_the_products_are_rounded() -> None:
    hidden, targets, weights = inputs()
    half = hidden.bfloat16().requires_grad_()
    layer = linear(torch.bfloat16)
    found, nll, _ = Head(layer, softcap=None, scale=1.0)(half, targets, weights)
    found.backward()
    assert nll.dtype == torch.float32
    assert half.grad is not None
    assert layer.weight.grad is not None
    assert float(found.detach()) == pytest.approx(float(truth(None, 1.0)[0]), rel=0.03)
    wanted = truth(None, 1.0)[3]
    assert float((layer.weight.grad.double() - wanted).norm() / wanted.norm()) < 0.02


def test_a_chunk_stays_within_its_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 32 * 2**20)
    assert chunk(32_000, "cpu") * 32_000 * 4 <= 32 * 2**20
    assert chunk(256_000, "cpu") == 32
    assert chunk(100, "cpu") == 4096
    assert chunk(32_000, "cpu", share=0.5) == chunk(32_000, "cpu") // 2


def test_scaling_all_weights_does_not_change_the_gradient_of_the_mean() -> None:
    gradients = []
    for factor in (1.0, 7.0):
        hidden, targets, weights = inputs()
        hidden.requires_grad_()
        layer = linear()
        scaled = weights * factor
        loss, _, _ = Head(layer, softcap=None, scale=1.0)(hidden, targets, scaled)
        (loss / scaled.sum()).backward()
        assert hidden.grad is not None
        assert layer.weight.grad is not None
        gradients.append(torch.cat([hidden.grad.flatten(), layer.weight.grad.flatten()]))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-8)
