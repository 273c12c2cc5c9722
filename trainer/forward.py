"""The forward pass: rows in, losses out, and no logit that carries no loss.

Hidden states of trained positions alone go through the output head, and the cross-entropy keeps one copy of
those logits in the model's own type, overwritten by their gradient. It does not know optimizers or steps.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from trainer.attention import rows_of
from trainer.batches import pack, pad
from trainer.pacing import LOGITS_AT_ONCE
from trainer.rows import Row
from trainer.techniques.adapted import Adapted


class RowLoss:
    """Cross-entropy, in nats, over the trained tokens of rows."""

    def __init__(self, adapted: Adapted, *, packed: bool, device: torch.device) -> None:
        self.adapted = adapted
        self._packed = packed
        self._device = device

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """The sum, a 32-bit scalar that can be differentiated; the rows go through in one pass."""
        return self.of_tokens(rows).sum()

    def of_rows(self, rows: Sequence[Row]) -> Tensor:
        """[rows], the sum of each."""
        counts = [row.trained_tokens for row in rows]
        return torch.stack([losses.sum() for losses in torch.split(self.of_tokens(rows), counts)])

    def of_tokens(self, rows: Sequence[Row]) -> Tensor:
        """[trained], of every trained token, row after row."""
        form = pack if self._packed else pad
        batch = form(rows, self._device, self.adapted.virtual_tokens)
        with rows_of(batch.row_lengths):
            logits = self.adapted.logits(batch)
        flat = logits.flatten(0, 1)  # [rows x columns, vocabulary]
        if batch.picked is not None:
            flat = flat.index_select(0, batch.picked)
        return cross_entropies(flat, batch.targets)


class _CrossEntropies(torch.autograd.Function):
    """-log softmax(logits)[target] of each row, computed in 32 bits a few rows at a time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:  # [trained, vocabulary], [trained]
        rows = max(1, LOGITS_AT_ONCE // logits.shape[1])
        normalizers = torch.cat([chunk.float().logsumexp(1) for chunk in torch.split(logits, rows)])
        chosen = logits.gather(1, targets[:, None])[:, 0].float()
        ctx.save_for_backward(logits, targets, normalizers)
        ctx.rows = rows
        return normalizers - chosen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        logits, targets, normalizers = ctx.saved_tensors
        written = torch.empty_like(logits)
        for chunk, out, normalizer, target, weight in zip(
            torch.split(logits, ctx.rows),
            torch.split(written, ctx.rows),
            torch.split(normalizers, ctx.rows),
            torch.split(targets, ctx.rows),
            torch.split(gradient, ctx.rows),
            strict=True,
        ):
            probabilities = (chunk.float() - normalizer[:, None]).exp_()
            probabilities[torch.arange(len(target), device=target.device), target] -= 1
            out.copy_(probabilities.mul_(weight[:, None]))
        return written, None


cross_entropies = cast(Callable[[Tensor, Tensor], Tensor], _CrossEntropies.apply)
