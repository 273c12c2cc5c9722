"""Run every benchmark, one after the other, and print what each measured: `python -m benchmarks [NAME...]`.

Each benchmark is a program of its own that prints one JSON document as its last line; nothing is asserted.
Ratios are taken within one run, because the machines are noisy. Ends non-zero when a benchmark did not end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = (
    "lora_operators",
    "adapters",
    "gateway",
    "gateway_alone",
    "many_adapters",
    "engine_restart",
    "jobs",
    "promotions",
    "recovery",
    "trainer",
    "preferences",
    "planning",
)
TIMEOUT_SECONDS = 1800


def main() -> int:
    """Run what was named, or everything."""
    chosen = tuple(sys.argv[1:]) or BENCHMARKS
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    console = Console()
    failed = [name for name in chosen if not _run(name, console)]
    if failed:
        console.print(f"did not end well: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, console: Console) -> bool:
    console.rule(f"{name} · load average {os.getloadavg()[0]:.1f}")
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_SECONDS
        )
        figures = json.loads(ended.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, ValueError) as error:
        console.print(f"{name}: {error}")
        return False
    table = Table("figure", "value")
    for path, value in _flat(figures):
        table.add_row(path, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    return True


def _flat(figures: object, path: str = "") -> list[tuple[str, object]]:
    """Every leaf with its path."""
    if isinstance(figures, dict):
        return [leaf for key, value in figures.items() for leaf in _flat(value, f"{path} {key}".strip())]
    return [(path, figures)]


if __name__ == "__main__":
    sys.exit(main())
