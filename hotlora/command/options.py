"""Options that several commands share. Nothing but typer is loaded."""

import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from hotlora.command.failing import AS_JSON

INT32_MAX: Final = 2**31 - 1
"""What a message can carry; which numbers make sense is the service's to judge."""


def _remember(context: typer.Context, value: bool) -> bool:
    context.meta[AS_JSON] = value
    return value


def carried(number: int | None) -> int | None:
    """Refuses a whole number that no message can carry."""
    if number is not None and abs(number) > INT32_MAX:
        raise typer.BadParameter(f"{number} is out of range.")
    return number


def constant(prefix: str, choice: str) -> str:
    """What a choice is called in the protos: `prompt-tuning` of TECHNIQUE is TECHNIQUE_PROMPT_TUNING."""
    return f"{prefix}_{choice.upper().replace('-', '_')}"


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Where the service is. [HOTLORA_ADDRESS, 127.0.0.1:50051]",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Write JSON for programs: one document, or one a line.", callback=_remember),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most this many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer.", callback=carried, metavar="N", show_default=False),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Makes drawing repeatable.", callback=carried, metavar="N", show_default=False),
]

Prompt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", metavar="TEXT", help="What to ask. Default: stdin.", show_default=False),
]
System = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT", help="System message before the prompt.", show_default=False),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", help="0 takes the likeliest token; up to 2.", show_default=False),
]
TopP = Annotated[float | None, typer.Option("--top-p", help="Above 0, up to 1.", show_default=False)]


SOURCE_HELP: Final = "JSON Lines, JSON, CSV or Parquet; hf:OWNER/NAME of the hub; or datasets/ID."


class FormatName(StrEnum):
    """The shape of rows."""

    CHAT = "chat"
    PROMPT_COMPLETION = "prompt_completion"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    TEXT = "text"
    PREFERENCES = "preferences"


class TaskName(StrEnum):
    """What rows teach."""

    CLASSIFICATION = "classification"
    ENTITIES = "entities"
    QUESTION_ANSWERING = "question_answering"
    GENERATION = "generation"
    INSTRUCTION = "instruction"


RowFormat = Annotated[
    FormatName | None,
    typer.Option("--format", help="Of rows. Default: their keys tell.", show_default=False),
]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="KEY=COLUMN", help="Such as prompt=question; repeatable.", show_default=False
    ),
]
RowTask = Annotated[TaskName | None, typer.Option("--task", help="What rows teach.", show_default=False)]
BaseModel = Annotated[
    str,
    typer.Option(
        "--base-model", help="Whose tokenizer counts. Default: the first that is served.", show_default=False
    ),
]
DropBadRows = Annotated[
    bool, typer.Option("--drop-bad-rows", help="Leave them out instead of refusing the file.")
]


class TechniqueName(StrEnum):
    """How to adapt the base model."""

    LORA = "lora"
    QLORA = "qlora"
    PROMPT_TUNING = "prompt-tuning"
    FULL = "full"


class ObjectiveName(StrEnum):
    """What training makes smaller."""

    SUPERVISED = "supervised"
    PREFERENCE = "preference"


class ScheduleName(StrEnum):
    """What the learning rate does after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class MetricName(StrEnum):
    """Which figure of an evaluation says what is better."""

    EVAL_LOSS = "eval-loss"
    TASK_SCORE = "task-score"


class ExportName(StrEnum):
    """What a version is exported as."""

    PEFT = "peft"
    MERGED = "merged"
    GGUF = "gguf"


class GgufTypeName(StrEnum):
    """What most weights of a GGUF file are."""

    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"


class JobStateName(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be taken back. A program that has no terminal is not asked."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)
