"""A merge: a base model and a low-rank adapter become one model, which needs neither PEFT nor this project.

    python -m trainer.merging BASE_MODEL_DIR ADAPTER_DIR TARGET_DIR

writes a directory of transformers into TARGET_DIR, which must be empty: weights in the precision of the
base's files, which is what it is served in, and the base's own configuration, tokenizer and template. Sums
are rounded so that they keep the adapter on average (`rounded`). Runs on the CPU: it is some additions.
Trusts that its caller checked the adapter's files.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(prog="python -m trainer.merging", description=__doc__.partition("\n")[0])
    made.add_argument("base", type=Path, help="directory of the base model")
    made.add_argument("adapter", type=Path, help="directory of PEFT's two files")
    made.add_argument("target", type=Path, help="empty directory")
    made.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all (%(default)s)")
    made.add_argument("--nice", type=int, default=5, help="added to the process's niceness (%(default)s)")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Merge as `words` say; None: those of the command line."""
    arguments = parser().parse_args(words)
    os.nice(arguments.nice)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    import torch  # noqa: PLC0415  - seconds, which --help need not take

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    merge(arguments.base, arguments.adapter, arguments.target)
    return 0


def merge(base_path: Path, adapter: Path, target: Path) -> None:
    """Write the model that base and adapter are together into an empty directory.

    Raises what loading a base raises, ValueError where a sum is not finite, and OSError.
    """
    import torch  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from peft.tuners.lora import Linear  # noqa: PLC0415

    from trainer.model import load_base  # noqa: PLC0415
    from trainer.model_files import write_model  # noqa: PLC0415

    base = load_base(base_path, "auto").model
    adapted = PeftModel.from_pretrained(base, adapter, torch_device="cpu")
    drawn = torch.Generator().manual_seed(0)  # the same files give the same model
    for name, layer in adapted.named_modules():
        if isinstance(layer, Linear):
            weight = layer.get_base_layer().get_parameter("weight")
            whole = rounded(
                weight.float() + layer.get_delta_weight(adapted.active_adapter), weight.dtype, drawn
            )
            if not bool(whole.isfinite().all()):
                raise ValueError(f"{name} would not be finite")
            weight.data = whole
    write_model(adapted.unload(), base_path, target)


def rounded(numbers: "Tensor", dtype: "torch.dtype", drawn: "torch.Generator") -> "Tensor":
    """32-bit numbers as `dtype`; as bfloat16 up or down by chance, so that each is itself on average.

    The nearest bfloat16 to a base's weight plus a little is that weight: of an adapter of nine steps a third
    was left in the weights, and 61% of its effect; rounded by chance, 98% of its effect. Half precision has
    three bits more, and its nearest numbers keep as much.
    """
    import torch  # noqa: PLC0415

    if dtype is not torch.bfloat16:
        return numbers.to(dtype)
    bits = numbers.contiguous().view(torch.int32)  # bfloat16 is the upper half of them
    bits = bits + torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, generator=drawn)
    return (bits & -(1 << 16)).view(torch.float32).to(torch.bfloat16)


if __name__ == "__main__":
    sys.exit(main())
