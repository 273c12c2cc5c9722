"""Reads published adapters: the manifest, and whether the files are those that it names.

An artifact is a directory named by the SHA-256 of its MANIFEST.json; the trainer writes it, this module only
reads. Nothing in it is executed or unpickled. Knows nothing of engines or states.
"""

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from service.errors import DataLoss, HotloraError, Unavailable
from service.jsonshape import Json, array, count, mapping, number, text

MANIFEST_NAME = "MANIFEST.json"
CONFIG_NAME = "adapter_config.json"
MODEL_CONFIG_NAME = "config.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 4 << 20
"""Twenty sequences of 64 tokens are some 100 KB; this is a bound against nonsense, not a budget."""
MAX_CONFIG_BYTES = 1 << 20
MAX_CANARY_TOKENS = 4096
"""All sequences together; each token is a forward pass in the engine's batch."""

NOT_AS_PUBLISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""What the kernel says where nothing is, or a file for a directory, a link or a socket for a file. Everything
else (no free descriptor, a disk or a network that fails) says nothing of the artifact."""
_RETRY_SECONDS = 5.0


class ArtifactCorrupt(DataLoss):
    """The directory is not what the trainer published; the message names the file and the difference."""

    def __init__(self, message: str) -> None:
        super().__init__("CORRUPT", message)


class ArtifactUnreadable(Unavailable):
    """The machine could not look; what the directory is remains unknown."""

    def __init__(self, message: str) -> None:
        super().__init__("ARTIFACT_UNREADABLE", message, retry_seconds=_RETRY_SECONDS)


class Form(StrEnum):
    """What an artifact is, for whoever serves it."""

    ADAPTER = "ADAPTER"
    """Low-rank matrices beside the base, which the engine loads."""
    PROMPT = "PROMPT"
    """Virtual tokens before every prompt, which the service adds."""
    MODEL = "MODEL"
    """A whole model, which needs an engine of its own."""


_FORMS = {
    "lora": Form.ADAPTER,
    "qlora": Form.ADAPTER,
    "prompt_tuning": Form.PROMPT,
    "full": Form.MODEL,
}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file as it was published."""

    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class CanarySequence:
    """Fixed tokens and what the trainer measured on them; log-probabilities in nats."""

    token_ids: tuple[int, ...]
    base_logprobs: tuple[float, ...]
    """Of each token but the first under the base model: `len(token_ids) - 1`."""
    adapter_logprobs: tuple[float, ...]
    """The same under the adapted model."""
    quantised_logprobs: tuple[float, ...] | None = None
    """The same under the adapted model on the quantised base that it was trained on; None where there was
    none."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What MANIFEST.json says, as far as serving needs it."""

    digest: str
    """SHA-256 of the file's bytes."""
    form: Form
    rank: int
    """The highest of manifest and adapter_config.json, so that neither can hide a higher one; 0 where there
    are no matrices."""
    virtual_tokens: int
    """Places that a PROMPT takes before every prompt; 0 for other forms."""
    base_name: str
    base_revision: str
    rendering: Json
    """What its base's renderer said of itself when the version was made: `Renderer.contract`."""
    files: Mapping[str, FileEntry]
    canary: tuple[CanarySequence, ...]

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read and check the shape of a manifest; blocks on disk. Raises ArtifactCorrupt,
        ArtifactUnreadable."""
        content = _read_bounded(directory / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        fields = _object(content, MANIFEST_NAME)
        try:
            if fields["format"] != FORMAT:
                raise ArtifactCorrupt(f"{MANIFEST_NAME} has format {fields['format']!r}, not {FORMAT}")
            form = _FORMS[text(fields["technique"])]
            config_name = MODEL_CONFIG_NAME if form is Form.MODEL else CONFIG_NAME
            config = _object(_read_bounded(directory / config_name, MAX_CONFIG_BYTES), config_name)
            base = mapping(fields["base_model"])
            return cls(
                digest=hashlib.sha256(content).hexdigest(),
                form=form,
                rank=_rank(fields, config) if form is Form.ADAPTER else 0,
                virtual_tokens=_virtual_tokens(fields, config) if form is Form.PROMPT else 0,
                base_name=text(base["name"]),
                base_revision=text(base["revision"]),
                rendering=mapping(fields["rendering"]),
                files={_file_name(name): _file(entry) for name, entry in mapping(fields["files"]).items()},
                canary=_canary(mapping(fields["canary"])),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactCorrupt(
                f"{MANIFEST_NAME} or the configuration beside it is malformed: {error}"
            ) from error


def manifest_fields(directory: Path) -> Json:
    """All that a manifest says, for people; blocks on disk. Raises ArtifactCorrupt, ArtifactUnreadable."""
    return _object(_read_bounded(directory / MANIFEST_NAME, MAX_MANIFEST_BYTES), MANIFEST_NAME)


def open_file(directory: Path, name: str) -> BinaryIO:
    """A published file, to be read; blocks on disk. Raises ArtifactCorrupt, ArtifactUnreadable."""
    try:
        return os.fdopen(os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        raise _not_read(name, error) from error


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Check that exactly the named files are there, plain, unlinked, with their sizes and digests; blocks
    on disk.

    Raises ArtifactCorrupt naming the first difference, ArtifactUnreadable.
    """
    try:
        present = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(directory)}
        expected = {*manifest.files, MANIFEST_NAME}
        if present.keys() != expected:
            missing, extra = sorted(expected - present.keys()), sorted(present.keys() - expected)
            raise ArtifactCorrupt(f"files are missing {missing} or too many {extra}")
        for name, status in present.items():
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise ArtifactCorrupt(f"{name} is not a plain file of its own")
        for name, entry in manifest.files.items():
            if present[name].st_size != entry.size:
                raise ArtifactCorrupt(
                    f"{name} has {present[name].st_size} bytes; {entry.size} were published"
                )
            if entry_of(directory / name) != entry:
                raise ArtifactCorrupt(f"{name} is not what was published: its SHA-256 differs")
    except OSError as error:
        raise _not_read(directory.name, error) from error


def entry_of(path: Path) -> FileEntry:
    """What a file is now. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=sha256, size=os.fstat(descriptor).st_size)


def _read_bounded(path: Path, max_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ArtifactCorrupt(f"{path.name} is not a plain file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise _not_read(path.name, error) from error
    if len(content) > max_bytes:
        raise ArtifactCorrupt(f"{path.name} is larger than {max_bytes} bytes")
    return content


def _not_read(name: str, error: OSError) -> HotloraError:
    if error.errno in NOT_AS_PUBLISHED:
        return ArtifactCorrupt(f"{name} cannot be read: {error.strerror}")
    return ArtifactUnreadable(f"{name} cannot be read now: {error.strerror}")


def _object(content: bytes, name: str) -> Json:
    try:
        return mapping(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactCorrupt(f"{name} is not a JSON object") from error


def _canary(fields: Json) -> tuple[CanarySequence, ...]:
    sequences = tuple(_sequence(mapping(each)) for each in array(fields["sequences"]))
    tokens = sum(len(each.token_ids) for each in sequences)
    if not 0 < tokens <= MAX_CANARY_TOKENS:
        raise ValueError(f"a canary of {tokens} tokens; 1 to {MAX_CANARY_TOKENS} are accepted")
    return sequences


def _sequence(fields: Json) -> CanarySequence:
    token_ids = tuple(count(each) for each in array(fields["token_ids"]))
    base = tuple(_finite(each) for each in array(fields["base_logprobs"]))
    adapter = tuple(_finite(each) for each in array(fields["adapter_logprobs"]))
    given = fields.get("quantised_logprobs")
    quantised = None if given is None else tuple(_finite(each) for each in array(given))
    lengths = {len(each) for each in (base, adapter, quantised) if each is not None}
    if len(token_ids) < 2 or lengths != {len(token_ids) - 1}:
        raise ValueError("a canary sequence needs one log-probability for each token but the first")
    return CanarySequence(
        token_ids=token_ids, base_logprobs=base, adapter_logprobs=adapter, quantised_logprobs=quantised
    )


def _rank(manifest: Json, config: Json) -> int:
    """The highest of all; PEFT allows single modules to differ."""
    patterns = mapping(config.get("rank_pattern") or {}).values()
    return max(count(manifest["rank"]), count(config["r"]), *map(count, patterns))


def _virtual_tokens(manifest: Json, config: Json) -> int:
    tokens, configured = count(manifest["virtual_tokens"]), count(config["num_virtual_tokens"])
    if not tokens or tokens != configured:
        raise ValueError(f"{tokens} virtual tokens in one and {configured} in the other")
    return tokens


def _file_name(name: str) -> str:
    if name in {"", ".", "..", MANIFEST_NAME} or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a file")
    return name


def _file(value: object) -> FileEntry:
    fields = mapping(value)
    return FileEntry(sha256=text(fields["sha256"]), size=count(fields["size"]))


def _finite(value: object) -> float:
    found = number(value)
    if not math.isfinite(found):
        raise TypeError(f"{found} where a finite number was expected")
    return found
