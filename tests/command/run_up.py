"""`hotlora up` with stand-ins for its programs: `python -m tests.command.run_up HOME GRACE MODE...`."""

import asyncio
import sys
from pathlib import Path

from hotlora.command import starting
from hotlora.command.voice import JsonVoice
from hotlora.stack import Program


def main(home: Path, grace_seconds: float, modes: list[str]) -> int:
    """Ready once every stand-in that stays has noted its process id."""
    programs = [
        Program(
            title=f"{mode} one",
            command=(sys.executable, "-m", "tests.command.stand_in", mode),
            environment={"HOTLORA_HOME": str(home)},
            log_path=home / "logs" / f"{index}.log",
        )
        for index, mode in enumerate(modes)
    ]
    voice = JsonVoice()

    async def ready() -> None:
        path, wanted = home / "pids", sum({"stay": 1, "stubborn": 2, "fail": 1}[mode] for mode in modes)
        while not path.exists() or len(path.read_text().split()) < wanted:
            voice.waiting("the stand-ins")
            await asyncio.sleep(0.01)

    return starting.run(
        programs, ready=ready, urls={"page": "http://x"}, voice=voice, grace_seconds=grace_seconds
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
