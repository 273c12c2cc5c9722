"""The default base model without most of its layers: real weights in their real shapes, in less than half of
the time. What it says makes no sense, and is the same whenever it is asked."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

LAYERS = 8
"""Of 30."""


def write_shallow_base(directory: Path, *, model_dir: Path) -> None:
    """Writes the Llama model of `model_dir` with its first layers alone."""
    shutil.copytree(model_dir, directory, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    config = json.loads((model_dir / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS}))
    weights = load_file(model_dir / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if _layer(name) < LAYERS}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})


def _layer(name: str) -> int:
    """Of a weight; 0 for those of no layer."""
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else 0
