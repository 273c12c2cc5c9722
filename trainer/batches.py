"""Micro-batches: as many rows as fit a budget of tokens, as the tensors of one forward pass.

Two forms with the same answer. Packed: rows side by side in one sequence [1, tokens], no padding. Padded:
one row a line [rows, longest], for models that cannot keep packed rows apart. It does not know the model or
the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainer.rows import Example, Row

ExampleT = TypeVar("ExampleT", bound=Example)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One forward pass."""

    inputs: dict[str, Tensor]
    """Arguments of the model: ids, positions, and for padded batches the mask."""
    row_lengths: tuple[int, ...]
    """Virtual tokens included."""
    predicting: Tensor
    """[columns], positions of the sequence for which logits are wanted."""
    picked: Tensor | None
    """[trained], which of rows x columns carry loss, flattened; None where every one does (packed)."""
    targets: Tensor
    """[trained], the token to be predicted at each of them."""
    tokens: int
    """Tokens of rows, padding not counted."""


def split_by_tokens(
    examples: Sequence[ExampleT], budget: int, *, padded: bool, virtual_tokens: int = 0
) -> list[list[ExampleT]]:
    """Examples in groups of at most `budget` tokens, padding counted where there is any; each in one pass.

    `virtual_tokens` are counted for every row. An example that is larger than the budget stands alone. Those
    of similar length come together, longest first, so that memory peaks in the first pass and not an hour
    later.
    """
    groups: list[list[ExampleT]] = []
    room = width = 0
    for example in sorted(examples, key=_longest, reverse=True):
        if not groups or _cost(example, width, virtual_tokens) > room:
            groups.append([])
            room = budget
            width = _longest(example) if padded else 0
        groups[-1].append(example)
        room -= _cost(example, width, virtual_tokens)
    return groups


def _longest(example: Example) -> int:
    return max(len(row.token_ids) for row in example.rows)


def _cost(example: Example, width: int, virtual_tokens: int) -> int:
    """Tokens of its rows, each filled up to `width`; 0 means not."""
    return sum((width or len(row.token_ids)) + virtual_tokens for row in example.rows)


def pack(rows: Sequence[Row], device: torch.device, virtual_tokens: int = 0) -> Batch:
    """Rows side by side; positions begin anew with each row, and with its virtual tokens if there are any.

    Those have positions and room in the sequence, but no ids: whoever runs the batch puts something there.
    """
    token_ids = [token for row in rows for token in row.token_ids]
    positions = [position for row in rows for position in range(virtual_tokens + len(row.token_ids))]
    trained = [flag for row in rows for flag in row.trained]
    in_front = [False] * virtual_tokens
    columns = [flag for row in rows for flag in (*in_front, *row.trained)]
    predicting = [index - 1 for index, flag in enumerate(columns) if flag]
    targets = [token for token, flag in zip(token_ids, trained, strict=True) if flag]
    return Batch(
        inputs={
            "input_ids": torch.tensor([token_ids], device=device),
            "position_ids": torch.tensor([positions], device=device),
        },
        row_lengths=tuple(virtual_tokens + len(row.token_ids) for row in rows),
        predicting=torch.tensor(predicting, device=device),
        picked=None,
        targets=torch.tensor(targets, device=device),
        tokens=len(token_ids),
    )


def pad(rows: Sequence[Row], device: torch.device, virtual_tokens: int = 0) -> Batch:
    """Rows below each other, filled up on the right with tokens that nothing attends to.

    The mask, the columns and the lengths count virtual tokens as `pack` does; the ids have none.
    """
    longest = max(len(row.token_ids) for row in rows)
    token_ids = [[*row.token_ids, *[0] * (longest - len(row.token_ids))] for row in rows]
    mask = [
        [1] * (virtual_tokens + len(row.token_ids)) + [0] * (longest - len(row.token_ids)) for row in rows
    ]
    columns = sorted({index - 1 for row in rows for index, flag in enumerate(row.trained) if flag})
    place = {column: index for index, column in enumerate(columns)}
    picked, targets = [], []
    for line, row in enumerate(rows):
        for index, flag in enumerate(row.trained):
            if flag:
                picked.append(line * len(columns) + place[index - 1])
                targets.append(row.token_ids[index])
    return Batch(
        inputs={
            "input_ids": torch.tensor(token_ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        },
        row_lengths=tuple(virtual_tokens + len(row.token_ids) for row in rows),
        predicting=torch.tensor(columns, device=device) + virtual_tokens,
        picked=torch.tensor(picked, device=device),
        targets=torch.tensor(targets, device=device),
        tokens=sum(len(row.token_ids) for row in rows),
    )
