"""Adapters for the default base model with drawn weights, published as the trainer publishes: real files,
real canary.

Nothing is trained: what counts here is that the recorded figures are those of the files.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from transformers import AutoModelForCausalLM

from trainer.canary import CanarySequence, measure
from trainer.config import BaseModel
from trainer.precision import fastest_dtype

TEXTS_TOKENS = ([1, *range(400, 440)], [1, *range(900, 963)], [1, *range(5000, 5040)])
STRENGTH = 0.1
"""Standard deviation of B's entries; enough to change what the model says."""


class Workshop:
    """Draws adapters and measures their canaries on one loaded base model."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self._dtype = fastest_dtype(torch.device("cpu"))

    def draw(self, *, seed: int, rank: int = 8, strength: float = STRENGTH) -> "Adapter":
        """An adapter on all linear layers."""
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(
            self._base.path, dtype=self._dtype, local_files_only=True
        )
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=strength)
                if "lora_" in name:
                    parameter.copy_(parameter.bfloat16())
        return Adapter(base=self._base, model=adapted, rank=rank)


class Adapter:
    """Weights and what they say."""

    def __init__(self, *, base: BaseModel, model: PeftModel, rank: int) -> None:
        self._base = base
        self._rank = rank
        config = model.peft_config["default"].to_dict()
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
        self.config = json.dumps({**plain, "inference_mode": True}, default=str).encode()
        self.tensors = {
            name: tensor.bfloat16().contiguous() for name, tensor in get_peft_model_state_dict(model).items()
        }
        self.canary = measure(model, [tuple(tokens) for tokens in TEXTS_TOKENS], lambda: None)

    def publish(
        self,
        artifacts_dir: Path,
        *,
        canary: list[CanarySequence] | None = None,
        renamed: tuple[str, str] = ("", ""),
    ) -> str:
        """Write the artifact; gives its digest. `renamed` replaces a part of every tensor's name."""
        tensors = {name.replace(*renamed): tensor for name, tensor in self.tensors.items()}
        files = {"adapter_config.json": self.config, "adapter_model.safetensors": save(tensors)}
        manifest = {
            "format": 1,
            "rank": self._rank,
            "base_model": {"name": self._base.name, "revision": self._base.revision},
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
                for name, content in files.items()
            },
            "canary": {"sequences": [asdict(sequence) for sequence in canary or self.canary]},
        }
        content = json.dumps(manifest).encode()
        directory = artifacts_dir / hashlib.sha256(content).hexdigest()
        directory.mkdir(parents=True)
        for name, body in {**files, "MANIFEST.json": content}.items():
            (directory / name).write_bytes(body)
        return directory.name
