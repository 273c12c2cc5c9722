"""A whole model as files that transformers reads: its weights, and all else as its base has it."""

import json
import shutil
from pathlib import Path

from transformers import PreTrainedModel

from trainer.base_model import MODEL_FILES
from trainer.files import json_bytes

_WEIGHT_FILES = ("*.safetensors", "model.safetensors.index.json")
_SHARD_SIZE = "5GB"
"""Of a weight file; larger ones are slow to move about, and some file systems refuse them."""


def write_model(model: PreTrainedModel, base_path: Path, directory: Path) -> None:
    """Write a model made of the base at `base_path` into an empty directory. Raises OSError."""
    model.save_pretrained(directory, max_shard_size=_SHARD_SIZE)
    for file in directory.iterdir():
        if not any(file.match(pattern) for pattern in _WEIGHT_FILES):
            file.unlink()
    # All but the weights is the base's own, to the byte where possible: rendering must not change.
    for pattern in set(MODEL_FILES) - set(_WEIGHT_FILES):
        for file in base_path.glob(pattern):
            shutil.copyfile(file, directory / file.name)
    _name_dtype(directory / "config.json", str(model.dtype).removeprefix("torch."))


def _name_dtype(config_path: Path, dtype: str) -> None:
    config = json.loads(config_path.read_bytes())
    name = "dtype" if "dtype" in config else "torch_dtype"
    config_path.write_bytes(json_bytes(config | {name: dtype}))
