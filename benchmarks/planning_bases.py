"""Random bases of chosen sizes for the planning benchmark: `build(directory, name, tokenizer_of)`.

Weights mean nothing for memory and speed, so they are drawn; the tokenizer is a real model's.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

VOCABULARY = 49_152
"""That of the tokenizer, and so of the logits."""

LLAMAS: Mapping[str, tuple[int, int, int, int]] = {
    "llama-20m": (4, 256, 768, 4),
    "llama-80m": (8, 512, 2048, 8),
    "llama-360m": (16, 1024, 3072, 16),
}
"""Layers, hidden size, intermediate size, heads; half as many heads for keys and values."""


def build(directory: Path, name: str, tokenizer_of: Path) -> Path:
    """Write a base called `name` below `directory`."""
    path = directory / name
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config_of(name), dtype=torch.bfloat16
    )
    model.save_pretrained(path)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        if (tokenizer_of / file).exists():
            shutil.copyfile(tokenizer_of / file, path / file)
    return path


def config_of(name: str) -> PretrainedConfig:
    """The configuration of a base."""
    if name == "gpt2-60m":
        return GPT2Config(vocab_size=VOCABULARY, n_positions=2048, n_embd=512, n_layer=10, n_head=8)
    layers, hidden, intermediate, heads = LLAMAS[name]
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
