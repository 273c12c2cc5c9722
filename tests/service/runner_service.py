"""A runner in a process of its own, to be killed: `python -m tests.service.runner_service HOME`."""

import asyncio
import sys
from pathlib import Path

from tests.service.runner_stage import staged


async def main() -> None:
    """Run jobs until killed."""
    async with staged(Path(sys.argv[1])) as stage:
        await stage.runner().run()


if __name__ == "__main__":
    asyncio.run(main())
