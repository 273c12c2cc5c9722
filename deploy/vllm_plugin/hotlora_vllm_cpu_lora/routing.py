"""Which rows of a batch use which adapter slot, worked out once per engine step and shared by all layers.

Knows nothing of weights or of vLLM: its input is one slot number per row, -1 for a row without an adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

Rows = slice | torch.Tensor
"""Row numbers of a batch; a slice where the rows are neighbours, so that they can be viewed instead of
copied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    """All rows of one batch that use one slot."""

    slot: int
    rows: Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """The rows that have an adapter, whole and by slot. Rows without one appear nowhere, so nothing can touch
    them."""

    num_rows: int
    """Rows of the batch, with and without an adapter."""
    groups: tuple[RowGroup, ...]
    """One for each slot in use, in the order of the slots."""
    adapter_rows: Rows
    """Every row with an adapter, in the order of the batch; a slice where they are neighbours."""
    num_adapter_rows: int
    is_scattered: bool
    """True where some group's rows are not neighbours."""
    slot_of_adapter_row: torch.Tensor
    """(num_adapter_rows,) int64."""
    _foreign_columns: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True where no row has an adapter."""
        return not self.groups

    def foreign_columns(
        self, layout: tuple[int, ...], make_slot_of_column: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """For each adapter row, which columns of the concatenated ranks belong to other slots.

        `layout` is the rank of every slot; layers with the same layout share one mask, so a step makes it
        once. Returns a bool tensor (num_adapter_rows, sum(layout)).
        """
        mask = self._foreign_columns.get(layout)
        if mask is None:
            mask = self.slot_of_adapter_row.unsqueeze(1) != make_slot_of_column().unsqueeze(0)
            self._foreign_columns[layout] = mask
        return mask


def route(slot_of_row: torch.Tensor) -> Routing:
    """Groups the rows of a batch by slot. `slot_of_row` is (rows,) int64; any negative number means no
    adapter."""
    adapter_rows = (slot_of_row >= 0).nonzero().flatten()
    slot_of_adapter_row = slot_of_row[adapter_rows]
    groups = []
    for slot in sorted(set(slot_of_adapter_row.tolist())):
        rows = (slot_of_row == slot).nonzero().flatten()
        groups.append(RowGroup(slot=slot, rows=_as_slice(rows)))
    return Routing(
        num_rows=len(slot_of_row),
        groups=tuple(groups),
        adapter_rows=_as_slice(adapter_rows),
        num_adapter_rows=len(adapter_rows),
        is_scattered=any(isinstance(group.rows, torch.Tensor) for group in groups),
        slot_of_adapter_row=slot_of_adapter_row,
    )


def _as_slice(rows: torch.Tensor) -> Rows:
    """Ascending row numbers as a slice where they are neighbours, else as they came."""
    if len(rows) == 0:
        return slice(0, 0)
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows
