"""Adapters for the default base model with drawn weights, published as the trainer publishes: real files,
real canary.

Nothing is trained: what counts here is that the recorded figures are those of the files.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor
from torch.nn.init import kaiming_uniform_
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from trainer.canary import CanarySequence
from trainer.config import BaseModel
from trainer.precision import fastest_dtype
from trainer.rendering import Renderer

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
        return next(self.draw_many([seed], rank=rank, strength=strength))

    def draw_many(
        self, seeds: Iterable[int], *, rank: int = 8, strength: float = STRENGTH
    ) -> Iterator["Adapter"]:
        """Adapters on all linear layers, one for each seed."""
        model = AutoModelForCausalLM.from_pretrained(
            self._base.path, dtype=self._dtype, local_files_only=True
        )
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    if "lora_A" in name:
                        kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)  # as PEFT does
                    if "lora_B" in name:
                        parameter.normal_(std=strength, generator=generator)
                    if "lora_" in name:
                        parameter.copy_(parameter.bfloat16())
            yield Adapter(base=self._base, model=adapted, rank=rank)

    def draw_prompt(self, *, seed: int, tokens: int = 8) -> "Prompt":
        """Virtual tokens: the embeddings of drawn tokens, shaken."""
        model = AutoModelForCausalLM.from_pretrained(
            self._base.path, dtype=self._dtype, local_files_only=True
        )
        table = model.get_input_embeddings().weight.detach()
        generator = torch.Generator().manual_seed(seed)
        drawn = table[torch.randint(len(table), (tokens,), generator=generator)].float()
        shaken = drawn + torch.randn(drawn.shape, generator=generator) * drawn.std()
        return Prompt(base=self._base, model=model, rows=shaken.bfloat16())

    def draw_model(self, *, seed: int) -> "WholeModel":
        """A small model of its own with drawn weights, which speaks the base's tokens."""
        base = AutoModelForCausalLM.from_pretrained(self._base.path, dtype=self._dtype, local_files_only=True)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=base.config.vocab_size,
            hidden_size=128,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=base.config.bos_token_id,
            eos_token_id=base.config.eos_token_id,
        )
        return WholeModel(base=self._base, before=base, model=LlamaForCausalLM(config).bfloat16())


class WholeModel:
    """All weights of a model, and what it says."""

    def __init__(self, *, base: BaseModel, before: PreTrainedModel, model: PreTrainedModel) -> None:
        self._base = base
        self._model = model
        model.to(before.dtype)
        self.canary = _canary(
            [_logprobs(before, None, tokens) for tokens in TEXTS_TOKENS],
            [_logprobs(model, None, tokens) for tokens in TEXTS_TOKENS],
        )

    def publish(self, artifacts_dir: Path) -> str:
        """Write the artifact; gives its digest."""
        with TemporaryDirectory() as directory:
            self._model.bfloat16().save_pretrained(directory)
            files = {file.name: file.read_bytes() for file in Path(directory).iterdir()}
        for name in ("tokenizer.json", "tokenizer_config.json"):
            files[name] = (self._base.path / name).read_bytes()
        return publish_artifact(
            artifacts_dir, self._base, files, {"technique": "full", "rank": 0}, self.canary
        )


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
        with model.disable_adapter():
            before = [_logprobs(model, None, tokens) for tokens in TEXTS_TOKENS]
        self.canary = _canary(before, [_logprobs(model, None, tokens) for tokens in TEXTS_TOKENS])

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
        fields = {"technique": "lora", "rank": self._rank}
        return publish_artifact(artifacts_dir, self._base, files, fields, canary or self.canary)


class Prompt:
    """Virtual tokens, and what the base says after them."""

    def __init__(self, *, base: BaseModel, model: PreTrainedModel, rows: Tensor) -> None:
        self._base = base
        self.rows = rows
        self.canary = _canary(
            [_logprobs(model, None, tokens) for tokens in TEXTS_TOKENS],
            [_logprobs(model, rows, tokens) for tokens in TEXTS_TOKENS],
        )

    def publish(self, artifacts_dir: Path, *, canary: list[CanarySequence] | None = None) -> str:
        """Write the artifact; gives its digest."""
        tokens = len(self.rows)
        config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": tokens}
        files = {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": save({"prompt_embeddings": self.rows}),
        }
        fields = {"technique": "prompt_tuning", "rank": 0, "virtual_tokens": tokens}
        return publish_artifact(artifacts_dir, self._base, files, fields, canary or self.canary)


def _canary(base: Sequence[tuple[float, ...]], adapted: Sequence[tuple[float, ...]]) -> list[CanarySequence]:
    return [
        CanarySequence(token_ids=tuple(tokens), base_logprobs=before, adapter_logprobs=after)
        for tokens, before, after in zip(TEXTS_TOKENS, base, adapted, strict=True)
    ]


def _logprobs(
    model: PreTrainedModel | PeftModel, rows: Tensor | None, token_ids: Sequence[int]
) -> tuple[float, ...]:
    """Of each token but the first, with `rows` before the first."""
    ids = torch.tensor([token_ids])
    with torch.inference_mode():
        words = model.get_input_embeddings()(ids)  # [1, tokens, hidden]
        rows = words[0, :0] if rows is None else rows.to(words.dtype)
        prompt = torch.cat([rows[None], words], dim=1)
        logits = model(inputs_embeds=prompt).logits[0, len(rows) : -1].float()  # [tokens - 1, vocabulary]
    return tuple(logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0].tolist())


def publish_artifact(
    artifacts_dir: Path,
    base: BaseModel,
    files: Mapping[str, bytes],
    fields: Mapping[str, object],
    canary: Sequence[CanarySequence],
) -> str:
    """Write the directory of a version; gives its digest."""
    manifest = {
        "format": 1,
        **fields,
        "base_model": {"name": base.name, "revision": base.revision},
        "rendering": Renderer.from_directory(base.path).contract(),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
        },
        "canary": {"sequences": [asdict(sequence) for sequence in canary]},
    }
    content = json.dumps(manifest).encode()
    directory = artifacts_dir / hashlib.sha256(content).hexdigest()
    directory.mkdir(parents=True)
    for name, body in {**files, "MANIFEST.json": content}.items():
        (directory / name).write_bytes(body)
    return directory.name
