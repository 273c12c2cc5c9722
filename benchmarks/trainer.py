"""Our training loop against TRL's SFTTrainer, as one JSON line: `python -m benchmarks.trainer`.

SmolLM2-135M, LoRA of rank 16 on every linear layer, the triage rows in one order for all; an arm is a process
of its own and arms take turns, so that a noisy machine slows all of them. Speed counts tokens without padding
between the end of an arm's first step and the end of its last, by the clock and by processor time. Threads
that share a processor with other programs wait for each other: on a busy machine only `--threads 1` and
processor time mean anything. Memory is the highest resident size of the whole process. Two arms run in 32
bits, where rounding cannot hide a difference, to show that the loss curve is the same.

Where the processor has no fast bfloat16, our loop trains in 32 bits and TRL's bfloat16 arms take minutes for
a step of eight rows: there both sides of those two comparisons train two rows a step, once, and TRL packed in
32 bits, which one might choose there instead, is compared with eight. The arms of a pair always train the
same rows in as many steps and from the same first weights, so that the losses of each are compared too. After
a step or two an adapter is so small that arithmetic in 16 bits rounds half of its effect away: there the
losses of an arm in 16 bits lie above those of one in 32.
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
    """Of each step."""
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is compared: two arms alike in all but who trains."""

    title: str
    ours: str
    theirs: str
    steps: int
    rows: int
    rounds: int

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Ours and theirs."""
        ours, theirs = (
            Arm(name=name, steps=self.steps, rows=self.rows, rounds=self.rounds)
            for name in (self.ours, self.theirs)
        )
        return ours, theirs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process came to."""

    tokens_per_second: float
    tokens_per_processor_second: float
    peak_bytes: int
    losses: tuple[float, ...]


DEFAULTS = "ours over TRL's defaults"
PACKED = "ours over TRL packed in bfloat16 without checkpointing"
PACKED_FP32 = "ours over TRL packed in 32 bits without checkpointing"
CURVES = Pair(
    title="ours over TRL, both in 32 bits, without checkpointing",
    ours="ours_fp32",
    theirs="trl_fp32",
    steps=10,
    rows=2,
    rounds=2,
)
FAST_BFLOAT16 = (
    Pair(title=DEFAULTS, ours="ours", theirs="trl", steps=8, rows=8, rounds=3),
    Pair(title=PACKED, ours="ours", theirs="trl_packed", steps=8, rows=8, rounds=3),
    CURVES,
)
SLOW_BFLOAT16 = (
    # A single row would leave nothing to pack.
    Pair(title=DEFAULTS, ours="ours", theirs="trl", steps=2, rows=2, rounds=1),
    Pair(title=PACKED, ours="ours", theirs="trl_packed", steps=2, rows=2, rounds=1),
    Pair(title=PACKED_FP32, ours="ours", theirs="trl_packed_fp32", steps=3, rows=8, rounds=1),
    CURVES,
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each arm (all)")
    threads = parser.parse_args().threads
    dtype = _run("-c", "import torch, trainer.precision as p; print(p.fastest_dtype(torch.device('cpu')))")
    fast = dtype.strip() == "torch.bfloat16"
    pairs = FAST_BFLOAT16 if fast else SLOW_BFLOAT16
    arms = list(dict.fromkeys(arm for pair in pairs for arm in pair.arms))
    base = base_directory()
    results: dict[Arm, list[Measured]] = {arm: [] for arm in arms}
    for number in range(max(arm.rounds for arm in arms)):
        for arm in arms[:: 1 if number % 2 == 0 else -1]:
            if number < arm.rounds:
                results[arm].append(measure(arm, base, threads))
                print(f"{arm}: {results[arm][-1]}", file=sys.stderr)
    surroundings = {"fast bfloat16": fast, "threads": threads, "load average": os.getloadavg()[0]}
    print(json.dumps({"trainer against TRL": {**comparisons(pairs, results), **surroundings}}))


def comparisons(pairs: Sequence[Pair], results: Mapping[Arm, Sequence[Measured]]) -> dict[str, object]:
    """What each pair came to, and each arm."""
    return {
        **{pair.title: _compared(pair, *(results[arm] for arm in pair.arms)) for pair in pairs},
        "arms": {
            f"{arm.name}, {arm.rows} rows a step": {
                "tokens per second": median(one.tokens_per_second for one in measured),
                "tokens per processor second": median(one.tokens_per_processor_second for one in measured),
                "peak MiB": median(one.peak_bytes for one in measured) / 2**20,
                "steps": arm.steps,
                "rounds": arm.rounds,
            }
            for arm, measured in results.items()
        },
    }


def _compared(pair: Pair, ours: Sequence[Measured], theirs: Sequence[Measured]) -> dict[str, object]:
    return {
        **ratios(ours, theirs),
        "rows a step": pair.rows,
        "loss": curves(ours[0], theirs[0]),
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
