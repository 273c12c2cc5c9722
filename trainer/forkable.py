"""Importing this imports what all trainers share, and leaves every GPU alone while it does.

CUDA's state does not survive a fork: a trainer whose fork server has initialised it fails at its first
tensor. bitsandbytes initialises it at its import, by asking every GPU for its version, and peft imports
bitsandbytes for a helper that nobody here calls. So peft is imported as if bitsandbytes were not installed. A
trainer imports it when peft looks for it again, in 0.1 s instead of two: what it needs is here already.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

_ASKS_GPUS = "bitsandbytes"

# None there makes its import raise ModuleNotFoundError (Python's reference, "The module cache").
cast(dict[str, object], sys.modules)[_ASKS_GPUS] = None
try:
    import peft  # noqa: F401
    import torch._inductor.compile_fx
finally:
    del sys.modules[_ASKS_GPUS]


def gpu_count() -> int:
    """How many GPUs there are. A child asks: torch asks the driver where NVML cannot tell, as with
    CUDA_VISIBLE_DEVICES=MIG-..., and poisons the forks of whoever asks it (`torch.cuda.is_available`)."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(torch.cuda.device_count())
        finally:
            os._exit(0)
    return max(0, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))  # below 0: ended by a signal


@contextmanager
def gpus_left_alone(count: int) -> Iterator[None]:
    """Within it models can run on the CPU, and no GPU is asked anything; there are `count`.

    transformers asks in every forward pass whether a CUDA graph is being captured, and torch initialises the
    driver to find out. Nobody captures one here.
    """
    answers = {
        "device_count": lambda: count,
        "is_available": lambda: count > 0,
        "is_current_stream_capturing": lambda: False,
    }
    asking = {name: getattr(torch.cuda, name) for name in answers}
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    try:
        yield
    finally:
        for name, ask in asking.items():
            setattr(torch.cuda, name, ask)
