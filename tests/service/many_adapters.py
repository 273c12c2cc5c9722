"""Hundreds of adapters that all differ, drawn within seconds: each changes one layer alone, the last one.

What the base computes before that layer is the same for all of them, and is computed once.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from transformers import AutoModelForCausalLM

from service.changes import Changes
from service.registry import Registry
from service.registry.versions import Imported
from tests.service.real_adapters import publish_artifact
from trainer.canary import CanarySequence
from trainer.config import BaseModel
from trainer.precision import fastest_dtype

RANK = 2
STRENGTH = 2.0
"""How far an adapter moves the sums of the last layer, as a share of these."""


@dataclass(frozen=True, kw_only=True)
class SmallAdapter:
    """Low-rank matrices of one linear layer, and what the model says with them."""

    base: BaseModel
    module: str
    a: Tensor
    """[rank, inputs]"""
    b: Tensor
    """[outputs, rank]"""
    canary: CanarySequence
    next_logprobs: Tensor
    """[vocabulary], of the token after the canary's sequence."""

    def publish(self, artifacts_dir: Path) -> str:
        """Write the artifact; gives its digest."""
        modules = [self.module.rpartition(".")[2]]
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": modules}
        prefix = f"base_model.model.{self.module}"
        tensors = {f"{prefix}.lora_A.weight": self.a, f"{prefix}.lora_B.weight": self.b}
        files = {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": save(tensors),
        }
        fields = {"technique": "lora", "rank": RANK}
        return publish_artifact(artifacts_dir, self.base, files, fields, [self.canary])


def draw(base: BaseModel, count: int, token_ids: Sequence[int]) -> list[SmallAdapter]:
    """So many, measured on one sequence."""
    dtype = fastest_dtype(torch.device("cpu"))
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype, local_files_only=True)
    last = len(model.model.layers) - 1
    inputs, sums = _seen(model, token_ids)  # [tokens, intermediate], [tokens, hidden]
    ids = torch.tensor(token_ids[1:])[:, None]

    def said(moved: Tensor) -> Tensor:
        logits = model.lm_head(model.model.norm(sums + moved)).float()
        return logits.log_softmax(1)  # [tokens, vocabulary]

    def of_sequence(logprobs: Tensor) -> tuple[float, ...]:
        return tuple(logprobs[:-1].gather(1, ids)[:, 0].tolist())

    drawn = []
    with torch.inference_mode():
        before = of_sequence(said(torch.zeros_like(sums)))
        for seed in range(count):
            generator = torch.Generator().manual_seed(seed)
            a = torch.randn(RANK, inputs.shape[1], generator=generator).bfloat16()
            b = torch.randn(sums.shape[1], RANK, generator=generator).bfloat16()
            b *= STRENGTH * sums.float().norm() / _moved(inputs, a, b).float().norm()
            logprobs = said(_moved(inputs, a, b))
            canary = CanarySequence(
                token_ids=tuple(token_ids), base_logprobs=before, adapter_logprobs=of_sequence(logprobs)
            )
            drawn.append(
                SmallAdapter(
                    base=base,
                    module=f"model.layers.{last}.mlp.down_proj",
                    a=a,
                    b=b,
                    canary=canary,
                    next_logprobs=logprobs[-1],
                )
            )
    return drawn


async def register(home: Path, adapters: Sequence[SmallAdapter], names: Sequence[str]) -> None:
    """Publish and register them below the home of a service that does not run yet."""
    artifacts_dir = home / "artifacts"
    artifacts_dir.mkdir(parents=True)
    async with Registry.open(f"sqlite+aiosqlite:///{home}/registry.db", changes=Changes()) as registry:
        for adapter, name in zip(adapters, names, strict=True):
            digest = await asyncio.to_thread(adapter.publish, artifacts_dir)
            await registry.import_version(
                Imported(
                    adapter_id=name, base_model=adapter.base.name, digest=digest, size_bytes=1, rank=RANK
                )
            )


def _moved(inputs: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """[tokens, hidden]: what an adapter adds."""
    return (inputs @ a.to(inputs.dtype).T) @ b.to(inputs.dtype).T


def _seen(model: torch.nn.Module, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What goes into the last linear layer, and what comes out of the last block."""
    inner = model.get_submodule("model")
    last = inner.get_submodule("layers")[-1]  # type: ignore[index]  # a list of modules
    found: dict[str, Tensor] = {}
    parts = {"inputs": last.get_submodule("mlp.down_proj"), "sums": inner.get_submodule("norm")}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, arguments, part=part: found.__setitem__(part, arguments[0][0])
        )
        for part, module in parts.items()
    ]
    with torch.inference_mode():
        model(torch.tensor([token_ids]))
    for hook in hooks:
        hook.remove()
    return found["inputs"], found["sums"]
