"""Stands in for `python -m trainer.probe`: figures of a machine that trains 1,000 tokens a second, or what
HOTLORA_PROBE_DOUBLE asks for: `fail` ends with status 1, `hang` waits to be ended.
`tests/training/test_double.py` compares the two."""

import argparse
import os
import sys
import time
from pathlib import Path

from trainer.config import Hyperparameters, Technique
from trainer.planning import Calibration, Load, Sample

RUNTIME_BYTES = 500_000_000


def calibration(technique: Technique) -> Calibration:
    """Two samples: 0.1 s a step and 1 ms a token; memory 600 MB and 3 MB a token."""
    settings = Hyperparameters()
    return Calibration(
        technique=technique,
        device="cpu",
        number_bytes=4,
        runtime_bytes=RUNTIME_BYTES,
        samples=tuple(
            Sample(
                load=Load(
                    tokens=tokens,
                    trained_tokens=tokens // 2,
                    rows=tokens // 128,
                    longest_row=128,
                    rank=settings.rank,
                    dropout=settings.dropout,
                    virtual_tokens=settings.virtual_tokens,
                ),
                peak_bytes=600_000_000 + 3_000_000 * tokens,
                step_seconds=0.1 + tokens / 1000,
            )
            for tokens in (128, 512)
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base", type=Path)
    parser.add_argument("--technique", type=Technique, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    match os.environ.get("HOTLORA_PROBE_DOUBLE"):
        case "fail":
            sys.exit("there is no memory for it")
        case "hang":
            (arguments.base / "probing").touch()
            time.sleep(60)
    print(calibration(arguments.technique).encode())


if __name__ == "__main__":
    main()
