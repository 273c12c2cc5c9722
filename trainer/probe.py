"""A probe: a few steps of random rows through the real loop, for the memory and the speed of this machine.

    python -m trainer.probe BASE_MODEL_DIR --technique lora

prints one JSON line, a `trainer.planning.calibration.Calibration`. Nothing is published and no file is
written.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path

from trainer.config import Hyperparameters, Technique
from trainer.planning.calibration import Calibration, Sample
from trainer.planning.memory import RUNTIME_BYTES, Load

_ROW_TOKENS = 128
_PASSES = {"cpu": (128, 512), "cuda": (1024, 8192)}
"""Tokens of the smaller and of the larger pass; both hold whole rows."""
_TIMED_STEPS = 2
_ENOUGH_SECONDS = 8.0
"""A step that takes longer is not repeated: a machine so slow has little noise to be got rid of."""


def main() -> int:
    """Probe and print; what libraries print goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m trainer.probe", description=__doc__.partition("\n")[0])
    parser.add_argument("base", type=Path, help="directory of a base model")
    parser.add_argument("--technique", type=Technique, choices=list(Technique), default=Technique.LORA)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all (%(default)s)")
    parser.add_argument("--nice", type=int, default=5, help="added to the process's niceness (%(default)s)")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as result:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        result.write(probe(arguments.base, arguments.technique, threads=arguments.threads).encode() + "\n")
    return 0


def probe(base_path: Path, technique: Technique, *, threads: int = 0) -> Calibration:
    """Measure in this process, which should do nothing else. Raises what loading a base raises."""
    from trainer.rendering import Renderer  # noqa: PLC0415

    renderer = Renderer.from_directory(base_path)  # a base without files is told before seconds of imports

    import torch  # noqa: PLC0415

    from trainer.channel import Channel  # noqa: PLC0415
    from trainer.footprint import forget_peak, peak_bytes, resident_bytes  # noqa: PLC0415
    from trainer.model import load_base, quantise  # noqa: PLC0415
    from trainer.precision import fastest_dtype  # noqa: PLC0415
    from trainer.rows import Row  # noqa: PLC0415
    from trainer.steps import Trainee, train_step  # noqa: PLC0415

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runtime_bytes = RUNTIME_BYTES["cuda"] if device.type == "cuda" else resident_bytes()
    dtype = fastest_dtype(device)
    base = load_base(base_path, dtype)
    vocabulary = int(base.model.config.vocab_size)
    if technique is Technique.QLORA:
        quantise(base.model, device, lambda: None)
    settings = Hyperparameters()
    trainee = Trainee.of(base, settings, device, technique)
    channel = Channel(lambda line: None)  # nobody has to hear of a probe
    numbers = random.Random(0)

    def row() -> Row:
        return Row(
            token_ids=tuple(numbers.randrange(vocabulary) for _ in range(_ROW_TOKENS)),
            trained=(False,) * (_ROW_TOKENS // 2) + (True,) * (_ROW_TOKENS // 2),
        )

    def step(rows: int, number: int) -> float:
        begin = time.perf_counter()
        train_step(trainee, [row() for _ in range(rows)], number, settings.learning_rate, channel)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    samples = []
    for tokens in _PASSES[device.type]:
        rows = tokens // _ROW_TOKENS
        step(rows, 0)  # the first one makes the optimizer's moments, and kernels ready
        forget_peak(device)
        quickest = step(rows, 1)
        for number in range(2, 1 + _TIMED_STEPS):
            if quickest < _ENOUGH_SECONDS:
                quickest = min(quickest, step(rows, number))
        samples.append(
            Sample(
                load=Load(
                    tokens=tokens,
                    trained_tokens=tokens // 2,
                    rows=rows,
                    longest_row=_ROW_TOKENS,
                    rank=settings.rank,
                    dropout=settings.dropout,
                    virtual_tokens=settings.virtual_tokens,
                ),
                peak_bytes=peak_bytes(device),
                step_seconds=quickest,
            )
        )
    del renderer  # held until here, as a run holds it
    return Calibration(
        technique=technique,
        device=device.type,
        number_bytes=dtype.itemsize,
        runtime_bytes=runtime_bytes,
        samples=tuple(samples),
    )


if __name__ == "__main__":
    sys.exit(main())
