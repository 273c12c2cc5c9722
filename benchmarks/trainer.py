"""Our training loop against TRL's SFTTrainer, as one JSON line: `python -m benchmarks.trainer`.

SmolLM2-135M, LoRA of rank 16 on every linear layer, the triage rows in one order for all; an arm is a process
of its own and arms take turns, so that a noisy machine slows all of them. Speed counts tokens without padding
between the end of an arm's first step and the end of its last, by the clock and by processor time. Threads
that share a processor with other programs wait for each other: on a busy machine only `--threads 1` and
processor time mean anything. Memory is the highest resident size of the whole process. Two arms run in 32
bits from the same first weights, to show that the loss curve is the same.

Where the processor has no fast bfloat16, TRL's defaults take minutes for one step of eight rows: there its
bfloat16 arms train one row a step, once, and neither their memory nor their loss is compared; TRL packed in
32 bits, which one might choose there instead, is measured too. A packed step of TRL holds other rows than a
step of ours, so its losses have no counterpart.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
MODELS = Path(os.environ.get("HOTLORA_MODELS_DIR", ROOT / ".hotlora" / "models"))
ARM_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one process trains."""

    name: str
    steps: int
    """The first one warms up and is not timed."""
    rows: int
    """Rows of a step; for the packed arm, rows that a step may hold at most."""
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process came to."""

    tokens_per_second: float
    tokens_per_processor_second: float
    peak_bytes: int
    losses: tuple[float, ...]


CURVES = (Arm(name="ours_fp32", steps=10, rows=2, rounds=2), Arm(name="trl_fp32", steps=10, rows=2, rounds=2))
FAST_BFLOAT16 = (
    Arm(name="ours", steps=8, rows=8, rounds=3),
    Arm(name="trl", steps=8, rows=8, rounds=3),
    Arm(name="trl_packed", steps=6, rows=8, rounds=3),
)
SLOW_BFLOAT16 = (
    Arm(name="ours", steps=3, rows=8, rounds=1),
    Arm(name="trl_packed_fp32", steps=3, rows=8, rounds=1),
    Arm(name="trl", steps=2, rows=1, rounds=1),
    Arm(name="trl_packed", steps=2, rows=1, rounds=1),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each arm (all)")
    threads = parser.parse_args().threads
    fast = _run("-c", "import torch, trainer.precision as p; print(p.fastest_dtype(torch.device('cpu')))")
    arms = (*(FAST_BFLOAT16 if fast.strip() == "torch.bfloat16" else SLOW_BFLOAT16), *CURVES)
    base = base_directory()
    results: dict[str, list[Measured]] = {arm.name: [] for arm in arms}
    for number in range(max(arm.rounds for arm in arms)):
        for arm in arms[:: 1 if number % 2 == 0 else -1]:
            if number < arm.rounds:
                results[arm.name].append(measure(arm, base, threads))
                print(f"{arm.name}: {results[arm.name][-1]}", file=sys.stderr)
    print(json.dumps({"trainer against TRL": {**_figures(arms, results), "threads": threads}}))


def _figures(arms: Sequence[Arm], results: Mapping[str, Sequence[Measured]]) -> dict[str, object]:
    rows = {arm.name: arm.rows for arm in arms}

    def compared(mine: str, theirs: str) -> dict[str, float]:
        figures = ratios(results[mine], results[theirs])
        if rows[mine] != rows[theirs]:
            del figures["peak memory"]
        return figures

    def losses(mine: str, theirs: str) -> dict[str, object]:
        return curves(results[mine][0], results[theirs][0])

    return {
        "ours over TRL's defaults": compared("ours", "trl"),
        "ours over TRL packed in bfloat16 without checkpointing": compared("ours", "trl_packed"),
        **(
            {"ours over TRL packed in 32 bits without checkpointing": compared("ours", "trl_packed_fp32")}
            if "trl_packed_fp32" in rows
            else {}
        ),
        "ours over TRL in 32 bits without checkpointing": compared("ours_fp32", "trl_fp32"),
        "loss in 32 bits": losses("ours_fp32", "trl_fp32"),
        **({"loss in bfloat16": losses("ours", "trl")} if rows["ours"] == rows["trl"] else {}),
        "arms": {
            arm.name: {
                "tokens per second": median(one.tokens_per_second for one in results[arm.name]),
                "tokens per processor second": median(
                    one.tokens_per_processor_second for one in results[arm.name]
                ),
                "peak MiB": median(one.peak_bytes for one in results[arm.name]) / 2**20,
                "loss of the last step": results[arm.name][-1].losses[-1],
                "steps": arm.steps,
                "rows a step": arm.rows,
                "rounds": arm.rounds,
            }
            for arm in arms
        },
        "fast bfloat16": "trl_packed_fp32" not in rows,
        "load average": os.getloadavg()[0],
    }


def ratios(ours: Sequence[Measured], theirs: Sequence[Measured]) -> dict[str, float]:
    """Of the rounds that both arms ran, the median of ours over theirs."""
    pairs = list(zip(ours, theirs, strict=False))
    return {
        "tokens per second": median(a.tokens_per_second / b.tokens_per_second for a, b in pairs),
        "tokens per processor second": median(
            a.tokens_per_processor_second / b.tokens_per_processor_second for a, b in pairs
        ),
        "peak memory": median(a.peak_bytes / b.peak_bytes for a, b in pairs),
    }


def curves(ours: Measured, theirs: Measured) -> dict[str, object]:
    """The losses of both, step by step, and how far they are apart at most."""
    return {
        "ours": list(ours.losses),
        "TRL": list(theirs.losses),
        "largest difference": max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True)),
    }


def base_directory() -> str:
    """Where the embedded default lies."""
    answer = _run("-m", "trainer.base_model", "--name", "smollm2-135m-instruct", "--models-dir", str(MODELS))
    return str(json.loads(answer)["path"])


def measure(arm: Arm, base: str, threads: int, module: str = "benchmarks.trainer_arms") -> Measured:
    """Run one arm to its end in a process of its own."""
    options = ("--steps", str(arm.steps), "--rows", str(arm.rows))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, arm.name, base, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    steps = [json.loads(line) for line in process.stdout]
    if process.wait() or len(steps) != arm.steps:
        sys.exit(f"{arm.name} ended with status {process.returncode} after {len(steps)} of {arm.steps} steps")
    first, last = steps[0], steps[-1]
    tokens = last["tokens"] - first["tokens"]
    return Measured(
        tokens_per_second=tokens / (last["wall"] - first["wall"]),
        tokens_per_processor_second=tokens / (last["processor"] - first["processor"]),
        peak_bytes=last["peak_bytes"],
        losses=tuple(step["loss"] for step in steps),
    )


def _run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=ARM_TIMEOUT_SECONDS,
    ).stdout


if __name__ == "__main__":
    main()
