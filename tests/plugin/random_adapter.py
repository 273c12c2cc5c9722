"""Adapters with random weights, in PEFT's files, strong enough to change what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

STRENGTH = 0.6
"""Standard deviation of what B makes of a normalised input's shrunk form; at 0.1 some answers stay the
base's."""


def write_random_adapter(
    directory: Path, *, model_dir: Path, rank: int, seed: int, with_lm_head: bool
) -> None:
    """Writes an adapter on all linear layers of a Llama model, and on its lm_head if asked to."""
    config = json.loads((model_dir / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    key_value = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden, key_value),
        "self_attn.v_proj": (hidden, key_value),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    modules = {
        f"model.layers.{layer}.{module}": shape
        for layer in range(config["num_hidden_layers"])
        for module, shape in shapes.items()
    }
    if with_lm_head:
        modules["lm_head"] = (hidden, config["vocab_size"])
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, (num_inputs, num_outputs) in modules.items():
        a = torch.randn(rank, num_inputs, generator=generator) * num_inputs**-0.5
        b = torch.randn(num_outputs, rank, generator=generator) * STRENGTH * rank**-0.5
        tensors[f"base_model.model.{module}.lora_A.weight"] = a.to(torch.bfloat16)
        tensors[f"base_model.model.{module}.lora_B.weight"] = b.to(torch.bfloat16)
    directory.mkdir(parents=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    adapter_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({module.rpartition(".")[-1] for module in modules}),
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(json.dumps(adapter_config))
