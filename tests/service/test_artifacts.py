"""Artifacts are read strictly: what differs from what was published is corrupt, and says where."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.artifacts import (
    MAX_MANIFEST_BYTES,
    ArtifactCorrupt,
    ArtifactUnreadable,
    Manifest,
    verify_files,
)
from service.errors import DataLoss
from tests.service.serving_stage import MODEL, write_artifact

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return tmp_path / write_artifact(tmp_path, b"weights", rank=4)


def _check(directory: Path) -> None:
    verify_files(directory, Manifest.read(directory))


def test_a_published_artifact_is_whole(artifact: Path) -> None:
    manifest = Manifest.read(artifact)
    verify_files(artifact, manifest)

    assert manifest.digest == artifact.name
    assert (manifest.base_name, manifest.base_revision) == (MODEL.name, MODEL.revision)
    assert manifest.rank == 4
    assert [len(each.token_ids) for each in manifest.canary] == [37, 20]


def test_the_higher_rank_of_manifest_and_configuration_counts(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path / write_artifact(tmp_path, b"a", rank=4, config_rank=64)).rank == 64


def _flip(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes(b"weighty")


def _truncate(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes(b"weight")


def _remove(directory: Path) -> None:
    (directory / WEIGHTS).unlink()


def _add(directory: Path) -> None:
    (directory / "adapter_model.bin").write_bytes(b"pickle")


def _link_softly(directory: Path) -> None:
    (directory / WEIGHTS).rename(directory.parent / "elsewhere")
    (directory / WEIGHTS).symlink_to(directory.parent / "elsewhere")


def _link_hard(directory: Path) -> None:
    os.link(directory / WEIGHTS, directory.parent / "second name")


def _make_directory(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    (directory / WEIGHTS).mkdir()


def _make_pipe(directory: Path) -> None:
    (directory / "MANIFEST.json").unlink()
    os.mkfifo(directory / "MANIFEST.json")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_flip, "SHA-256 differs"),
        (_truncate, "6 bytes; 7 were published"),
        (_remove, "missing"),
        (_add, "adapter_model.bin"),
        (_link_softly, "not a plain file"),
        (_link_hard, "not a plain file"),
        (_make_directory, "not a plain file"),
        (_make_pipe, "not a plain file"),
    ],
)
def test_harm_to_a_file_is_found_and_named(artifact: Path, harm: Callable[[Path], None], says: str) -> None:
    harm(artifact)

    with pytest.raises(ArtifactCorrupt, match=says) as found:
        _check(artifact)
    assert isinstance(found.value, DataLoss)
    assert found.value.reason == "CORRUPT"


def test_a_missing_directory_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(ArtifactCorrupt):
        Manifest.read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["rank"], "4"),
        (["rank"], True),
        (["rank"], -1),
        (["base_model"], "base"),
        (["base_model", "revision"], None),
        (["rendering"], "chatml"),
        (["files"], []),
        (["files", "../../etc/passwd"], {"sha256": "0", "size": 0}),
        (["files", ".."], {"sha256": "0", "size": 0}),
        (["files", "MANIFEST.json"], {"sha256": "0", "size": 0}),
        (["files", WEIGHTS], {"sha256": "0"}),
        (["canary", "sequences"], []),
        (["canary", "sequences", 0, "token_ids"], [1]),
        (["canary", "sequences", 0, "base_logprobs"], [0.0]),
        (["canary", "sequences", 0, "base_logprobs", 3], float("nan")),
        (["canary", "sequences", 0, "adapter_logprobs", 3], float("inf")),
        (["canary", "sequences", 0, "adapter_logprobs", 3], "0"),
        (["canary", "sequences", 0, "token_ids", 3], 1.5),
        (["canary", "sequences", 0, "quantised_logprobs"], [0.0]),
        (["technique"], "dora"),
    ],
)
def test_a_malformed_manifest_is_corrupt(artifact: Path, path: list[Any], value: Any) -> None:
    file = artifact / "MANIFEST.json"
    fields = json.loads(file.read_bytes())
    *way, last = path
    inner = fields
    for step in way:
        inner = inner[step]
    inner[last] = value
    file.write_text(json.dumps(fields))

    with pytest.raises(ArtifactCorrupt):
        Manifest.read(artifact)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"format": 1' + b" " * MAX_MANIFEST_BYTES + b"}"]
)
def test_a_manifest_that_is_no_small_json_object_is_corrupt(artifact: Path, content: bytes) -> None:
    (artifact / "MANIFEST.json").write_bytes(content)

    with pytest.raises(ArtifactCorrupt):
        Manifest.read(artifact)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As if everything that this process may open were open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_cannot_be_looked_at_now_is_unreadable_and_not_corrupt(artifact: Path) -> None:
    manifest = Manifest.read(artifact)

    with no_descriptor_left(), pytest.raises(ArtifactUnreadable):
        Manifest.read(artifact)
    with no_descriptor_left(), pytest.raises(ArtifactUnreadable):
        verify_files(artifact, manifest)
