"""Which number format the arithmetic runs in."""

import torch

from trainer.processor import has_native_bfloat16


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs with instructions for it, else float32.

    By what the processor has, as the engine beside us decides it too, and not by a trial: a busy machine
    times one wrongly, and an adapter that learnt in 32 bits loses up to a third of a small effect where it is
    served in 16 (a small change to a sum that is already rounded is rounded away), so that its proof fails.
    """
    return torch.bfloat16 if device.type == "cuda" or has_native_bfloat16() else torch.float32
