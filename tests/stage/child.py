"""The service with the trainer's doubles: `python -m tests.stage.child PLAN.json`, settings as ever."""

import sys

from service.__main__ import main

if __name__ == "__main__":
    trainer = (sys.executable, "-m", "tests.doubles.trainer", "--plan", sys.argv[1])
    importing, merging = (
        (sys.executable, "-m", f"tests.doubles.{name}") for name in ("importing", "merging")
    )
    sys.exit(main(trainer, importing, merging))
