"""Techniques: what of a base model is trained, and what comes out of it.

`adapt` makes a base ready for training; everything that depends on the technique is behind `Adapted`. Nothing
here knows rows, losses or optimizers.
"""

import torch

from trainer.config import Hyperparameters, Technique
from trainer.model import Base
from trainer.techniques.adapted import Adapted
from trainer.techniques.low_rank import LowRank
from trainer.techniques.virtual_prompt import VirtualPrompt
from trainer.techniques.whole import Whole

__all__ = ["Adapted", "LowRank", "VirtualPrompt", "Whole", "adapt"]


def adapt(base: Base, technique: Technique, settings: Hyperparameters, device: torch.device) -> Adapted:
    """Move the base to `device` and prepare it. Raises TargetModulesError, InitialPromptError.

    For QLoRA the base has to be quantised already.
    """
    match technique:
        case Technique.LORA | Technique.QLORA:
            return LowRank(base, settings, device)
        case Technique.PROMPT_TUNING:
            return VirtualPrompt(base, settings, device)
        case Technique.FULL:
            return Whole(base, device)
