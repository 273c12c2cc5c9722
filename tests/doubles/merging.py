"""Stands in for `python -m trainer.merging`, without torch: the base's files, with the adapter's weights.

A file `merging` in the base's
directory says "HANG" or "FAIL"; `merging.begun` appears beside it. `tests/training/test_double.py` compares
the two.
"""

import shutil
import sys
import time

from trainer.base_model import MODEL_FILES
from trainer.merging import parser


def main() -> None:
    arguments = parser().parse_args()
    wish = arguments.base / "merging"
    (arguments.base / "merging.begun").touch()
    match wish.read_text() if wish.exists() else "":
        case "HANG":
            time.sleep(600)  # longer than a test may take: whoever is not killed is noticed
        case "FAIL":
            sys.exit("there is no memory for it")
    for pattern in set(MODEL_FILES) - {"*.safetensors", "model.safetensors.index.json"}:
        for file in arguments.base.glob(pattern):
            shutil.copyfile(file, arguments.target / file.name)
    shutil.copyfile(arguments.adapter / "adapter_model.safetensors", arguments.target / "model.safetensors")


if __name__ == "__main__":
    main()
