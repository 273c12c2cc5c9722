"""The service with the trainer's double: `python -m tests.stage.child PLAN.json`, settings as ever."""

import sys

from service.__main__ import main

if __name__ == "__main__":
    sys.exit(main((sys.executable, "-m", "tests.doubles.trainer", "--plan", sys.argv[1])))
