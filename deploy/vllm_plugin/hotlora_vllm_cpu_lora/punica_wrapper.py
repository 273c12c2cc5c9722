"""The class that vLLM instantiates instead of its PunicaWrapperCPU: vLLM's interface on this package's
operators.

The only module besides `compatibility` and `register` that knows vLLM. Imported by vLLM itself, by the name
that the replaced platform hook returns, so only in the process that holds the model and only when LoRA is
enabled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from hotlora_vllm_cpu_lora.operators import add_lora, compute_dtype, expand_into, shrink_into
from hotlora_vllm_cpu_lora.packing import PackingCache
from hotlora_vllm_cpu_lora.register import ACTIVE_MESSAGE
from hotlora_vllm_cpu_lora.routing import Routing, route

logger = init_logger("vllm.hotlora_cpu_lora")
"""Below `vllm`, whose logger is the only one that vLLM configures to print."""


class HotloraPunicaWrapperCPU(PunicaWrapperCPU):
    """Applies adapters to the rows that have one. `update_metadata` comes before every step whose mapping
    changed."""

    def __init__(
        self, max_num_batched_tokens: int, max_batches: int, device: torch.device | str, **kwargs: Any
    ) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        self._packing = PackingCache()
        self._token_routing = route(torch.empty(0, dtype=torch.long))
        self._sampler_routing = self._token_routing
        logger.info(ACTIVE_MESSAGE)

    def update_metadata(
        self,
        mapping: LoRAMapping,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self._token_routing = route(self.token_lora_indices)
        self._sampler_routing = route(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds `x @ A.T @ B.T * scale` to `y` in place. `buffer`, scratch space of the stock operators, is
        not needed."""
        if self._token_routing.is_empty:
            return
        weights = self._packing.packed(lora_a_stacked, lora_b_stacked, compute_dtype(lora_b_stacked[0].dtype))
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        add_lora(y, x, weights, self._token_routing, scale=scale)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """Adds `x @ B.T` to `y` in place; `x` is each row's own line of its adapter's A."""
        if self._token_routing.is_empty:
            return
        if not add_inputs:
            expand_into(
                y, x, lora_b_stacked, self._token_routing, outputs=slice(0, y.shape[-1]), add_inputs=False
            )
            return
        weights = self._packing.packed(None, (lora_b_stacked,), compute_dtype(lora_b_stacked.dtype))
        add_lora(y, x, weights, self._token_routing)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds `x @ A.T @ B.T * scale` to the logits `y` in place, for one row per sampled token."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        weights = self._packing.packed(
            (lora_a_stacked,), (lora_b_stacked,), compute_dtype(lora_b_stacked.dtype)
        )
        if weights.total_rank > 0:  # no more than a few adapters are trained on lm_head
            add_lora(y, x, weights, self._routing_of_logits(x), scale=scale)

    def _routing_of_logits(self, x: torch.Tensor) -> Routing:
        """The sampler's routing, or the tokens' own for the logits of a prompt (prompt_logprobs).

        vLLM does not say which it asks for, but the sampler's rows are a copy, and a prompt's are part of the
        tensor with the hidden states of all tokens of the step. vLLM's own class takes the sampler's routing
        for both, and fails or answers wrongly.
        """
        row_bytes = x.stride(0) * x.element_size()
        num_stored_rows = x.untyped_storage().nbytes() // row_bytes
        is_copy = len(x) == num_stored_rows
        if (is_copy and len(x) == self._sampler_routing.num_rows) or (
            num_stored_rows != self._token_routing.num_rows
        ):
            return self._sampler_routing
        first_row = x.storage_offset() // x.stride(0)
        return route(self.token_lora_indices[first_row : first_row + len(x)])

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """Sets `y[i]` to `x @ A[i].T * scale` for rows with an adapter. Fully sharded layers call it by
        itself."""
        x = x.view(-1, x.shape[-1])
        for i, lora_a in enumerate(lora_a_stacked):
            shrink_into(y[i].view(-1, y[i].shape[-1]), x, lora_a, self._token_routing, scale=scale)

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: Sequence[int],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """Adds `x[i] @ B[i].T` to the i-th slice of `y` (or sets it) for rows with an adapter."""
        y = y.view(-1, y.shape[-1])
        start = offset_start
        for i, lora_b in enumerate(lora_b_stacked):
            outputs = slice(start, start + output_slices[i])
            expand_into(y, x[i], lora_b, self._token_routing, outputs=outputs, add_inputs=add_inputs)
            start = outputs.stop
