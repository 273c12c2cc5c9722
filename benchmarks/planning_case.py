"""One training run whose memory is measured, to be run in a process of its own.

    python -m benchmarks.planning_case JOB.json --dtype float32

trains as a job would, publication included, and writes one JSON line: the highest resident size of this
process in bytes, or on a GPU what its allocator had allocated at most.
"""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

import torch

from trainer import events
from trainer.channel import Channel
from trainer.config import JobFile
from trainer.footprint import peak_bytes
from trainer.run import run


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()

    def hear(line: bytes) -> None:
        event = events.decode(line)
        if isinstance(event, events.Failed):
            sys.exit(event.message)

    with contextlib.redirect_stdout(sys.stderr):
        run(JobFile.read(arguments.job), Channel(hear), dtype=getattr(torch, arguments.dtype))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps({"peak_bytes": peak_bytes(device)}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
