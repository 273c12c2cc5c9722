"""A base model so small that it is written in no time: a llama of random weights whose tokens are bytes."""

import json
import random
from array import array
from pathlib import Path

from tests.tiny_renderer import tiny_renderer

NAME = "tiny-base"
CONTEXT_LENGTH = 2048
_VOCABULARY, _WIDTH, _INNER, _LAYERS = 264, 16, 32, 2


def write_base(directory: Path, name: str = NAME) -> Path:
    """Write the model to `directory`/`name`, as far as transformers, trainer and service read one."""
    path = directory / name
    tiny_renderer(path)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": CONTEXT_LENGTH,
        "vocab_size": _VOCABULARY,
        "tie_word_embeddings": True,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(_weights())
    return path


def _weights() -> bytes:
    header, body, drawn = {}, bytearray(), random.Random(0)
    for name, shape in _shapes().items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        numbers = array("f", (drawn.gauss(0.0, 0.1) for _ in range(count))).tobytes()
        offsets = [len(body), len(body) + len(numbers)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        body += numbers
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + body


def _shapes() -> dict[str, list[int]]:
    shapes = {"model.embed_tokens.weight": [_VOCABULARY, _WIDTH], "model.norm.weight": [_WIDTH]}
    for layer in range(_LAYERS):
        block = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{block}.self_attn.{name}.weight"] = [_WIDTH, _WIDTH]
        for name in ("gate_proj", "up_proj"):
            shapes[f"{block}.mlp.{name}.weight"] = [_INNER, _WIDTH]
        shapes[f"{block}.mlp.down_proj.weight"] = [_WIDTH, _INNER]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{name}.weight"] = [_WIDTH]
    return shapes
