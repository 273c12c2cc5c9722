"""Importing this imports what all trainers share, and leaves every GPU alone while it does.

CUDA's state does not survive a fork: a trainer whose fork server has initialised it fails at its first
tensor. bitsandbytes initialises it at its import, by asking every GPU for its version, and peft imports
bitsandbytes for a helper that nobody here calls. So peft is imported as if bitsandbytes were not installed. A
trainer imports it when peft looks for it again, in 0.1 s instead of two: what it needs is here already.
"""

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


@contextmanager
def nothing_is_captured() -> Iterator[None]:
    """Within it models can run on the CPU, and no GPU is asked anything.

    transformers asks in every forward pass whether a CUDA graph is being captured, and torch initialises the
    driver to find out. Nobody captures one here.
    """
    asks_the_driver = torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: False
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = asks_the_driver
