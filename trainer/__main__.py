"""`python -m trainer JOB.json`: one training run, its events as lines on standard output.

Exit status: 0 published, 1 failed, 3 cancelled (SIGTERM or SIGINT); 2 when the arguments are wrong.
"""

import argparse
import os
import sys
from pathlib import Path

from trainer.channel import Channel, block_stop_signals, watch_signals
from trainer.config import JobFile


def main() -> int:
    """Read the job file, then import what trains; libraries' prints go to standard error."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train one adapter.")
    parser.add_argument("job", type=Path, help="job file, as trainer.config.JobFile writes it")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all (%(default)s)")
    parser.add_argument("--nice", type=int, default=0, help="added to the process's niceness (%(default)s)")
    arguments = parser.parse_args()
    try:
        job = JobFile.read(arguments.job)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    os.nice(arguments.nice)
    # Idle threads sleep at once: where others want the cores too, spinning ones cost most of the speed.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    block_stop_signals()
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def write(line: bytes) -> None:
        lines.write(line)

    channel = Channel(write)
    watch_signals(channel)

    import torch  # noqa: PLC0415  (seconds of imports: after the arguments and the wish to stop are heard)

    from trainer.run import run  # noqa: PLC0415

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return run(job, channel)


if __name__ == "__main__":
    sys.exit(main())
