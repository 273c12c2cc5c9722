"""A tiny program in the place of service or page: `python -m tests.command.stand_in MODE`.

It writes its process id and those of its children to the file HOTLORA_HOME/pids, one a line, and then
- `stay`: ends when it is asked to, or when its stdin ends;
- `stubborn`: ignores SIGTERM and a closed stdin, and so does its child, which has a process group of its own;
- `fail`: says why on stderr and ends with 7.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from hotlora import lifeline


def _note(pid: int) -> None:
    with (Path(os.environ["HOTLORA_HOME"]) / "pids").open("a") as file:
        file.write(f"{pid}\n")


def main(mode: str) -> int:
    """Runs until its mode says otherwise."""
    stop = threading.Event()
    if mode == "fail":
        print("starting\nno more room on the device", file=sys.stderr)
        return 7
    if mode == "stay":
        signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
        lifeline.hold(stop.set)
    if mode in ("stubborn", "grandchild"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "stubborn":
        subprocess.Popen([sys.executable, "-m", "tests.command.stand_in", "grandchild"], process_group=0)
    _note(os.getpid())
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
