"""vLLM's own CPU LoRA operators against the plugin's, on one layer of SmolLM2-135M, as one JSON line.

Both are called as vLLM calls them, in turns (ABAB), on one thread and by processor time: with more threads,
what else runs on the machine decides how long they wait for each other. Starts no engine; `adapters` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from service.engine.packages import Packages

if TYPE_CHECKING:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

RANK = 16
LAYERS = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))
"""Inputs and output slices of qkv, o, gate_up and down."""
BATCHES = ((1, 1), (8, 1), (8, 4), (32, 1), (32, 4), (512, 1), (512, 4))
"""Rows and adapters. Up to 32 rows every row belongs to another request; 512 are prompts, one after the
other."""
DECODE_ROWS = 32
ROUND_SECONDS = 0.05
"""Calls are repeated for at least this long, so that the clock's grain does not matter."""

Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One batch shape; milliseconds of processor time for the layer."""

    base_linears_ms: float
    stock_min_ms: float
    stock_median_ms: float
    plugin_min_ms: float
    plugin_median_ms: float
    speedup_min: float
    speedup_median: float
    """Stock over plugin."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns for each side and shape (default 7)")
    rounds = parser.parse_args().rounds
    if not Packages.installed().is_cpu_build:
        print(json.dumps({"benchmark": "lora_operators", "operators of a GPU's engine": "its own"}))
        return
    dtype = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    torch.set_num_threads(1)
    with torch.inference_mode():
        comparisons = {
            f"{rows} rows {adapters} adapters": asdict(_compare(rows, adapters, dtype, rounds))
            for rows, adapters in BATCHES
        }
    report = {
        "benchmark": "lora_operators",
        "dtype": str(dtype).removeprefix("torch."),
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
        "comparisons": comparisons,
    }
    print(json.dumps(report))


def _compare(rows: int, adapters: int, dtype: torch.dtype, rounds: int) -> Comparison:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's imports
        from hotlora_vllm_cpu_lora.punica_wrapper import HotloraPunicaWrapperCPU  # noqa: PLC0415
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: PLC0415
    torch.manual_seed(0)
    linears = [torch.randn(sum(slices), inputs).to(dtype) for inputs, slices in LAYERS]
    inputs = [torch.randn(rows, num_inputs).to(dtype) for num_inputs, _ in LAYERS]
    stacks = [_stacked(adapters, num_inputs, slices, dtype) for num_inputs, slices in LAYERS]

    def base() -> None:
        for x, weight in zip(inputs, linears, strict=True):
            torch.nn.functional.linear(x, weight)

    stock = _lora_step(PunicaWrapperCPU, rows, adapters, inputs, stacks)
    plugin = _lora_step(HotloraPunicaWrapperCPU, rows, adapters, inputs, stacks)
    seconds: dict[str, list[float]] = {"base": [], "stock": [], "plugin": []}
    for step in (base, stock, plugin):
        step()
    for _ in range(rounds):
        for name, step in (("base", base), ("stock", stock), ("plugin", plugin)):
            seconds[name].append(_seconds_per_call(step))
    stock_ms, plugin_ms = ([1000 * s for s in seconds[name]] for name in ("stock", "plugin"))
    return Comparison(
        base_linears_ms=round(1000 * min(seconds["base"]), 3),
        stock_min_ms=round(min(stock_ms), 3),
        stock_median_ms=round(statistics.median(stock_ms), 3),
        plugin_min_ms=round(min(plugin_ms), 3),
        plugin_median_ms=round(statistics.median(plugin_ms), 3),
        speedup_min=round(min(stock_ms) / min(plugin_ms), 2),
        speedup_median=round(statistics.median(stock_ms) / statistics.median(plugin_ms), 2),
    )


def _stacked(
    adapters: int, num_inputs: int, slices: tuple[int, ...], dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Random A and B of each slice, in vLLM's layout. Made outside inference mode, as the engine makes
    them."""
    with torch.inference_mode(mode=False):
        lora_a = tuple(torch.randn(adapters, 1, RANK, num_inputs).to(dtype) / num_inputs for _ in slices)
        lora_b = tuple(torch.randn(adapters, 1, size, RANK).to(dtype) / RANK for size in slices)
    return lora_a, lora_b


def _lora_step(
    wrapper_class: type[PunicaWrapperCPU],
    rows: int,
    adapters: int,
    inputs: list[torch.Tensor],
    stacks: list[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]],
) -> Step:
    """All LoRA work of one layer for a batch whose rows are shared out among the adapters."""
    from vllm.lora.layers import LoRAMapping  # noqa: PLC0415

    ids = [row % adapters + 1 for row in range(rows)]
    if rows > DECODE_ROWS:
        ids.sort()
    wrapper = wrapper_class(rows, max_batches=rows, device="cpu")
    slots: list[int | None] = [slot + 1 for slot in range(adapters)]
    wrapper.update_metadata(LoRAMapping(tuple(ids), tuple(ids), is_prefill=True), slots, adapters + 1, 100)
    outputs = [torch.zeros(rows, sum(slices), dtype=inputs[0].dtype) for _, slices in LAYERS]

    def step() -> None:
        for (_, slices), x, y, (lora_a, lora_b) in zip(LAYERS, inputs, outputs, stacks, strict=True):
            wrapper.add_lora_linear(y, x, lora_a, lora_b, 1.0, slices)

    return step


def _seconds_per_call(step: Step) -> float:
    num_calls, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < ROUND_SECONDS:
        step()
        num_calls += 1
    return elapsed / num_calls


if __name__ == "__main__":
    main()
