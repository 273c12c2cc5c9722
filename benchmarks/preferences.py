"""Our preference optimisation against TRL's DPOTrainer, as one JSON line: `python -m benchmarks.preferences`.

SmolLM2-135M in 32 bits, LoRA of rank 16 on every linear layer, two pairs a step, TRL without checkpointing.
Arms take turns, each in a process of its own; speed and memory are measured as `benchmarks.trainer` does.
"""

import argparse
import json
import os
import sys
from statistics import median

from benchmarks.trainer import Arm, Measured, base_directory, curves, measure, ratios

ARMS = (Arm(name="ours_dpo", steps=6, rows=2, rounds=2), Arm(name="trl_dpo", steps=6, rows=2, rounds=2))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each arm (all)")
    threads = parser.parse_args().threads
    base = base_directory()
    results: dict[str, list[Measured]] = {arm.name: [] for arm in ARMS}
    for number in range(ARMS[0].rounds):
        for arm in ARMS[:: 1 if number % 2 == 0 else -1]:
            results[arm.name].append(measure(arm, base, threads, module="benchmarks.preference_arms"))
            print(f"{arm.name}: {results[arm.name][-1]}", file=sys.stderr)
    ours, theirs = (results[arm.name] for arm in ARMS)
    figures = {
        **ratios(ours, theirs),
        "loss": curves(ours[0], theirs[0]),
        "tokens per second of ours": median(one.tokens_per_second for one in ours),
        "threads": threads,
        "load average": os.getloadavg()[0],
    }
    print(json.dumps({"preferences, ours over TRL's DPOTrainer": figures}))


if __name__ == "__main__":
    main()
