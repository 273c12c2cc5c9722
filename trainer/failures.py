"""What went wrong, for a person: every way in which a run can fail becomes a reason and one sentence.

Details go to standard error; nothing of an unforeseen exception's text reaches an event.
"""

import errno

import torch

from trainer.adapter import TargetModulesError
from trainer.base_model import BaseModelError
from trainer.events import FailureReason
from trainer.model import BaseModelLoadError
from trainer.records import RecordsError
from trainer.rendering import RenderingError
from trainer.rows import DataError
from trainer.techniques.virtual_prompt import InitialPromptError


class TrainingError(Exception):
    """A failure whose reason is known where it happens."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def explain(error: Exception) -> tuple[FailureReason, str]:
    """Reason and sentence for whatever ended a run."""
    match error:
        case TrainingError():
            return error.reason, error.message
        case _ if _is_out_of_memory(error) or _is_out_of_memory(error.__cause__):
            return (
                FailureReason.OUT_OF_MEMORY,
                "The machine ran out of memory; shorter rows, a lower rank or QLoRA need less, and "
                "full fine-tuning needs most.",
            )
        case RecordsError() | DataError():
            return FailureReason.DATA_ERROR, f"The dataset cannot be trained on: {_clause(error)}."
        case (
            RenderingError()
            | BaseModelError()
            | BaseModelLoadError()
            | TargetModulesError()
            | InitialPromptError()
        ):
            return FailureReason.BASE_MODEL_ERROR, f"The base model cannot be trained: {_clause(error)}."
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FailureReason.DISK_FULL, "The disk is full; free some space and start the job again."
        case _:
            return FailureReason.INTERNAL, "The trainer failed unexpectedly; its log says more."


def _is_out_of_memory(error: BaseException | None) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator has no exception type of its own, only this sentence.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _clause(error: Exception) -> str:
    return str(error).rstrip(". ")
