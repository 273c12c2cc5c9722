"""A merge: a base model and a low-rank adapter become one model, which needs neither PEFT nor this project.

    python -m trainer.merging BASE_MODEL_DIR ADAPTER_DIR TARGET_DIR

writes a directory of transformers into TARGET_DIR, which must be empty: weights in the precision of the
base's files, which is what it is served in, and the base's own configuration, tokenizer and template. Runs on
the CPU: it is some additions. Trusts that its caller checked the adapter's files.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


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
    from peft import PeftModel  # noqa: PLC0415

    from trainer.model import load_base  # noqa: PLC0415
    from trainer.model_files import write_model  # noqa: PLC0415

    base = load_base(base_path, "auto").model
    PeftModel.from_pretrained(base, adapter, torch_device="cpu").merge_and_unload(safe_merge=True)
    write_model(base, base_path, target)


if __name__ == "__main__":
    sys.exit(main())
