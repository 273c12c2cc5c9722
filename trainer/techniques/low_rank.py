"""LoRA and QLoRA: low-rank matrices beside frozen linear layers, published as PEFT's two files."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.adapter import ADAPTER, inject, matrices_of, target_modules_of
from trainer.config import Hyperparameters
from trainer.files import json_bytes
from trainer.model import Base
from trainer.techniques.adapted import Adapted, as_published

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class LowRank(Adapted):
    """See the module. The matrices are 32-bit whatever the base is."""

    def __init__(self, base: Base, settings: Hyperparameters, device: torch.device) -> None:
        self._model = inject(
            base.model,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=settings.dropout,
            target_modules=settings.target_modules,
            use_rslora=settings.use_rslora,
            seed=settings.seed,
        ).to(device)
        self._trained = matrices_of(self._model)
        self._settings = settings

    @property
    def model(self) -> PeftModel:
        return self._model

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return self._trained

    @property
    def rank(self) -> int:
        return self._settings.rank

    @property
    def facts(self) -> Mapping[str, object]:
        return {
            "alpha": self._settings.alpha,
            "use_rslora": self._settings.use_rslora,
            "target_modules": target_modules_of(self._model),
        }

    def base_alone(self) -> AbstractContextManager[None]:
        return self._model.disable_adapter()

    def is_unchanged(self) -> bool:
        return not any(bool(weight.any()) for name, weight in self._trained.items() if ".lora_B." in name)

    def write(self, directory: Path, base_name: str) -> None:
        fields = self._model.peft_config[ADAPTER].to_dict()
        write_adapter(directory, fields, self._trained, base_name)


def write_adapter(
    directory: Path, config: Mapping[str, object], weights: Mapping[str, Tensor], base_name: str
) -> None:
    """PEFT's two files as PEFT writes them, but with a name for the base and everything in order."""
    fields = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    fields |= {"base_model_name_or_path": base_name, "inference_mode": True}
    (directory / CONFIG_FILE).write_bytes(json_bytes(fields))
    save_file(as_published(weights), directory / WEIGHTS_FILE, metadata={"format": "pt"})
