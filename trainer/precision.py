"""Which number format the arithmetic runs in, decided by what the machine is fast at."""

import time

import torch

_SIZE = (48, 512, 1024)
"""Tokens, inputs, outputs of the trial product: large enough to show the kernel, small enough for 50 ms."""
_CLEAR_LEAD = 1.1
"""bfloat16 has to be this much faster; at equal speed 32 bits are the better numbers."""


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs with matrix units for it, else float32.

    Measured, since torch's capability flags say what runs and not what is fast: a CPU with AVX2 alone
    multiplies bfloat16 matrices 10 to 30 times slower than 32-bit ones.
    """
    if device.type == "cuda":
        return torch.bfloat16
    return (
        torch.bfloat16 if _seconds(torch.bfloat16) * _CLEAR_LEAD < _seconds(torch.float32) else torch.float32
    )


def _seconds(dtype: torch.dtype) -> float:
    """Time of a linear layer, forward and backward to its input; the best of three."""
    tokens, inputs, outputs = _SIZE
    x = torch.ones(tokens, inputs, dtype=dtype)
    weight = torch.ones(outputs, inputs, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        torch.nn.functional.linear(x, weight) @ weight
        best = min(best, time.perf_counter() - begin)
    return best
