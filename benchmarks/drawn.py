"""Adapters with drawn weights, registered before a service runs: proven and served as trained ones are.

Speed does not depend on what an adapter says, and drawing hundreds takes a minute where training takes hours.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.stack import settings_for
from service.base_model import resolve_base_model
from service.changes import Changes
from service.registry import Registry
from service.registry.versions import Imported
from trainer.canary import CanarySequence
from trainer.config import BaseModel
from trainer.files import seal
from trainer.precision import fastest_dtype
from trainer.publication import MANIFEST

RANK = 8
TOKENS = (1, *range(400, 440))
STRENGTH = 0.1
"""Standard deviation of B's entries; enough to be told from the base."""


async def register(home: Path, count: int) -> list[str]:
    """Have so many adapters below `home`, PENDING; gives their exact names."""
    settings = settings_for(home)
    settings.make_directories()
    base, _ = await resolve_base_model(settings.base_model, settings.models_dir)
    published = await asyncio.to_thread(lambda: list(_published(base, count, settings.artifacts_dir)))
    async with Registry.open(settings.database_url, changes=Changes()) as registry:
        rows = [
            await registry.import_version(
                Imported(
                    adapter_id=f"drawn-{number}",
                    base_model=base.name,
                    rank=RANK,
                    digest=digest,
                    size_bytes=sum(
                        file.stat().st_size for file in (settings.artifacts_dir / digest).iterdir()
                    ),
                )
            )
            for number, digest in enumerate(published)
        ]
    return [row.model for row in rows]


def _published(base: BaseModel, count: int, artifacts_dir: Path) -> Iterator[str]:
    """Digests of adapters on all linear layers that all differ."""
    dtype = fastest_dtype(torch.device("cpu"))
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype)
    adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    with adapted.disable_adapter():
        before = _logprobs(adapted)
    for seed in range(count):
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=STRENGTH)
                if "lora_" in name:
                    parameter.copy_(parameter.bfloat16())
        staged = artifacts_dir / f"staged-{seed}"
        adapted.save_pretrained(str(staged))
        (staged / "README.md").unlink()
        canary = CanarySequence(token_ids=TOKENS, base_logprobs=before, adapter_logprobs=_logprobs(adapted))
        manifest = {
            "format": 1,
            "technique": "lora",
            "rank": RANK,
            "base_model": {"name": base.name, "revision": base.revision},
            "files": seal(staged),
            "canary": {"sequences": [asdict(canary)]},
        }
        content = json.dumps(manifest).encode()
        digest = hashlib.sha256(content).hexdigest()
        (staged / MANIFEST).write_bytes(content)
        staged.rename(artifacts_dir / digest)
        yield digest


def _logprobs(model: PeftModel) -> tuple[float, ...]:
    """Of each token but the first."""
    ids = torch.tensor([TOKENS])
    with torch.inference_mode():
        logprobs = model(input_ids=ids).logits[0, :-1].float().log_softmax(1)  # [tokens - 1, vocabulary]
    return tuple(logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist())
