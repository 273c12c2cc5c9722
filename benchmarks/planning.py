"""Planned against measured peak memory, one row a combination: `python -m benchmarks.planning`.

Each combination of technique, batch, row length, number format and model size trains for a few steps in a
process of its own, as a job does, publication included, on the device that a trainer chooses here. What it
needed at most (resident, or allocated on the GPU) is compared with what the plan said before. Models of other
sizes than the default one have random weights, which need the same memory. The last line is a JSON document;
progress goes to standard error.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.planning_bases import build
from trainer.config import BaseModel, Hyperparameters, JobFile, Objective, Technique
from trainer.planning import RUNTIME_BYTES, Data, Device, Footing, plan, shape_of_directory
from trainer.records import Kind
from trainer.rendering import Renderer
from trainer.rows import load_examples

ROOT = Path(__file__).resolve().parent.parent
MODELS = Path(os.environ.get("HOTLORA_MODELS_DIR", ROOT / ".hotlora" / "models"))
CASE_TIMEOUT_SECONDS = 600
DEFAULT = "smollm2-135m-instruct"
STEPS = 2
"""The second one has the optimizer's moments beside it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination."""

    base: str
    technique: Technique
    batch: int
    length: int
    """Tokens of every row, of each side of a pair, and of each piece of a text, more or less."""
    rank: int = 16
    dropout: float = 0.05
    dtype: str = "float32"
    answer_share: float = 0.5
    """Part of a row's words that carries loss; texts are trained on whole."""
    kind: Kind = Kind.CONVERSATIONS

    @property
    def name(self) -> str:
        """For people."""
        rank = f" r{self.rank}" if self.technique in (Technique.LORA, Technique.QLORA) else ""
        kind = "" if self.kind is Kind.CONVERSATIONS else f" {self.kind}"
        return f"{self.base} {self.technique}{rank}{kind} {self.dtype} {self.batch} x {self.length}"

    @property
    def objective(self) -> Objective:
        """What such rows are for."""
        return Objective.PREFERENCE if self.kind is Kind.PREFERENCES else Objective.SUPERVISED


LORA, QLORA, PROMPT, FULL = (
    Technique.LORA,
    Technique.QLORA,
    Technique.PROMPT_TUNING,
    Technique.FULL,
)
CASES = (
    Case(base="llama-20m", technique=LORA, batch=4, length=64),
    Case(base="llama-20m", technique=LORA, batch=6, length=96),
    Case(base="llama-20m", technique=LORA, batch=2, length=32, dtype="bfloat16"),
    Case(base="llama-20m", technique=QLORA, batch=4, length=64),
    Case(base="llama-20m", technique=PROMPT, batch=4, length=64),
    Case(base="llama-20m", technique=FULL, batch=4, length=64),
    Case(base="llama-80m", technique=LORA, batch=1, length=256),
    Case(base="llama-80m", technique=LORA, batch=2, length=64, rank=64),
    Case(base="llama-80m", technique=FULL, batch=1, length=64),
    Case(base="gpt2-60m", technique=LORA, batch=2, length=64),
    Case(base=DEFAULT, technique=LORA, batch=1, length=64),
    Case(base=DEFAULT, technique=LORA, batch=2, length=96, dropout=0.0, answer_share=0.9),
    Case(base=DEFAULT, technique=QLORA, batch=1, length=64),
    Case(base=DEFAULT, technique=PROMPT, batch=1, length=64),
    Case(base="llama-80m", technique=LORA, batch=1, length=128, kind=Kind.PREFERENCES),
    Case(base="llama-20m", technique=FULL, batch=2, length=64, kind=Kind.PREFERENCES),
    Case(base="llama-80m", technique=LORA, batch=2, length=96, kind=Kind.TEXT),
    Case(base="llama-360m", technique=LORA, batch=1, length=48),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many (%(default)s)")
    cases = CASES[: parser.parse_args().cases]
    default = Path(
        json.loads(_output("-m", "trainer.base_model", "--name", DEFAULT, "--models-dir", str(MODELS)))[
            "path"
        ]
    )
    renderer = Renderer.from_directory(default)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        bases = {DEFAULT: default}
        for place, case in enumerate(cases):
            if case.base not in bases:
                bases[case.base] = build(Path(folder), case.base, default)
            own = Path(folder) / str(place)
            own.mkdir()
            measured = measure(case, bases[case.base], own)
            planned = planned_bytes(case, bases[case.base], renderer, own / "rows.jsonl")
            rows[case.name] = {
                "planned MiB": planned / 2**20,
                "measured MiB": measured / 2**20,
                "error": planned / measured - 1,
            }
            print(f"{case.name}: {rows[case.name]}", file=sys.stderr, flush=True)
    errors = [row["error"] for row in rows.values()]
    figures = {
        **rows,
        "median error": median(abs(error) for error in errors),
        "worst underestimate": max(0.0, -min(errors)),
    }
    print(json.dumps({"planned against measured peak memory": figures}))


def write_rows(path: Path, case: Case) -> None:
    """One batch of rows: every word is one token, and a conversation has some 20 besides."""
    words = max(2, case.length - 20)
    answer = max(1, round(words * case.answer_share))
    question = [{"role": "user", "content": "the" + " the" * max(0, words - answer - 1)}]
    answers = ["the" + " the" * (answer - 1), "a" + " a" * (answer - 1)]
    match case.kind:
        case Kind.CONVERSATIONS:
            row: dict[str, object] = {"messages": [*question, {"role": "assistant", "content": answers[0]}]}
        case Kind.PREFERENCES:
            row = {"prompt": question, "chosen": answers[0], "rejected": answers[1]}
        case Kind.TEXT:
            path.write_text(json.dumps({"text": "the" + " the" * (case.batch * (case.length - 1))}) + "\n")
            return
    path.write_text((json.dumps(row) + "\n") * case.batch)


def settings_of(case: Case) -> Hyperparameters:
    """What both the run and the plan are told."""
    return Hyperparameters(
        rank=case.rank,
        dropout=case.dropout,
        learning_rate=1e-3,
        max_steps=STEPS,
        batch_size=case.batch,
        max_sequence_length=case.length if case.kind is Kind.TEXT else 4096,
        validation_fraction=0.0,
    )


def planned_bytes(case: Case, base: Path, renderer: Renderer, data: Path) -> int:
    """What the plan says, by the formula alone."""
    examples = load_examples(data, renderer, max_length=4096, objective=case.objective)
    rows = [row for example in examples for row in example.rows]
    tokens = sum(len(row.token_ids) for row in rows)
    device = Device(
        footing=footing_of(case),
        memory_bytes=1 << 40,
        available_bytes=1 << 40,
    )
    settings = settings_of(case)
    found = plan(
        shape_of_directory(base),
        Data(
            rows=len(examples),
            tokens=tokens,
            longest_row=max(len(row.token_ids) for row in rows),
            trained_share=sum(row.trained_tokens for row in rows) / tokens,
            objective=case.objective,
            is_cut=case.kind is Kind.TEXT,
        ),
        device,
        context_length=4096,
        max_rank=512,
        calibrations={},
        given={
            name: getattr(settings, name)
            for name in ("rank", "dropout", "max_steps", "batch_size", "max_sequence_length")
        },
    )
    return next(one.total_bytes for one in found.techniques if one.technique is case.technique)


def footing_of(case: Case) -> Footing:
    """What a trainer stands on here."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Footing(
        device=device,
        number_bytes=4 if case.dtype == "float32" else 2,
        runtime_bytes=RUNTIME_BYTES[device],
    )


def measure(case: Case, base: Path, folder: Path) -> int:
    """Train in a process of its own; returns the most that it held, in bytes."""
    data = folder / "rows.jsonl"
    write_rows(data, case)
    work, artifacts = folder / "work", folder / "artifacts"
    work.mkdir()
    artifacts.mkdir()
    job = JobFile(
        job_id="planned",
        attempt=1,
        adapter_id="planned",
        base_model=BaseModel(name=case.base, path=base, revision="benchmark"),
        dataset_path=data,
        dataset_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        technique=case.technique,
        objective=case.objective,
        hyperparameters=settings_of(case),
        work_path=work,
        artifacts_path=artifacts,
    )
    job.write(folder / "job.json")
    line = _output("-m", "benchmarks.planning_case", str(folder / "job.json"), "--dtype", case.dtype)
    return int(json.loads(line)["peak_bytes"])


def _output(*arguments: str) -> str:
    """The last line that a program of ours prints."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=CASE_TIMEOUT_SECONDS,
    )
    if ended.returncode:
        sys.exit(f"{' '.join(arguments)}: {ended.stderr[-2000:]}")
    return ended.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
