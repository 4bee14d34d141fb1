"""The head and its cross-entropy in one function, without the full logits in memory.

It processes one chunk of tokens at a time and computes the gradient in the forward pass, next to
the logits: three matrix products as with full logits, and none twice. Only the gradients of the
hidden states and of the head's weights stay until the backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from finetune_data.memory.activations import CHUNK_BYTES, chunk_tokens

Predicted = tuple[Tensor, Tensor, Tensor]  # Σ w·nll; each target's nll; whether argmax is right


class Head(nn.Module):  # type: ignore[misc]
    """The last layer of a language model and its loss. The weight is the model's own parameter.

    It is a module with that parameter, so that ZeRO 3 gathers the parameter around `forward`.
    """

    def __init__(self, linear: nn.Linear, *, softcap: float | None, scale: float) -> None:
        super().__init__()
        self.weight = linear.weight
        self._softcap = softcap
        self._scale = scale
        self.chunk_share = 1.0  # of the usual bytes; less after an attempt ran out of memory

    def forward(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Predicted:
        """hidden [n, width], targets [n], weights [n] float64: Σ w·nll, nll [n], right [n]."""
        step = chunk(self.weight.shape[0], hidden.device.type, self.chunk_share)
        found: Predicted = LinearCrossEntropy.apply(
            hidden, self.weight, targets, weights, self._softcap, self._scale, step
        )
        return found


class LinearCrossEntropy(Function):  # type: ignore[misc]
    """Softmax cross-entropy of `cap·tanh(scale·hidden @ weight.T / cap)` in chunks of `step`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - `apply` takes positional arguments
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        softcap: float | None,
        scale: float,
        step: int,
    ) -> Predicted:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        n = len(hidden)
        nll = torch.empty(n, dtype=torch.float32, device=hidden.device)
        right = torch.empty(n, dtype=torch.bool, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        for start in range(0, n, step):
            part = slice(start, start + step)
            inputs = hidden[part]
            values = (inputs @ weight.T).float()
            if scale != 1:
                values *= scale
            slope = None
            if softcap is not None:
                values = values.div_(softcap).tanh_()
                if needs_hidden or needs_weight:
                    slope = 1 - values.square()
                values *= softcap
            target = targets[part].unsqueeze(1)
            largest, best = values.max(1, keepdim=True)
            right[part] = (best == target).squeeze(1)
            values -= largest
            picked = values.gather(1, target)
            sums = values.exp_().sum(1, keepdim=True)
            nll[part] = (sums.log() - picked).squeeze(1)
            if not (needs_hidden or needs_weight):
                del values  # before the next chunk is computed
                continue
            wanted = weights[part].to(torch.float32).unsqueeze(1)
            values *= wanted / sums
            values.scatter_add_(1, target, -wanted)
            if slope is not None:
                values *= slope
                slope = None  # frees its memory before the products
            if scale != 1:
                values *= scale
            values = values.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(values, weight, out=grad_hidden[part])
            if grad_weight is not None:
                if weight.dtype == torch.float32:
                    grad_weight.addmm_(values.T, inputs)
                else:  # each chunk is rounded once, and summed in fp32
                    grad_weight += values.T @ inputs
            del values
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        ctx.gradients = grad_hidden, grad_weight
        ctx.mark_non_differentiable(nll, right)
        return (weights * nll).sum(), nll, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.gradients
        ctx.gradients = None
        for gradient in (hidden, weight):
            if gradient is not None:
                gradient.mul_(grads[0])
        return hidden, weight, None, None, None, None, None


def chunk(vocabulary: int, device: str, share: float = 1) -> int:
    """The number of tokens per chunk. share: of the usual bytes."""
    return chunk_tokens(vocabulary, share * CHUNK_BYTES[device])


def find_head(causal: Any) -> Head | None:
    """The model's last layer as a `Head`; None if it is not a plain linear layer."""
    linear = causal.get_output_embeddings()
    if type(linear) is not nn.Linear or linear.bias is not None:
        return None
    config = causal.config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None):
        scale = float(config.logit_scale)  # Cohere
    elif getattr(config, "logits_scaling", None):
        scale = 1 / float(config.logits_scaling)  # Granite
    softcap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return Head(linear, softcap=float(softcap) if softcap else None, scale=scale)
