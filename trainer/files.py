"""Files that survive a crash: whole on disk before anybody can see their name."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path


def write_durably(directory: Path, contents: Mapping[str, bytes]) -> dict[str, dict[str, str | int]]:
    """Write files into a new directory and force them and it to disk.

    Returns SHA-256 and size of each, as manifests list them. Raises OSError (ENOSPC when the disk is full).
    """
    directory.mkdir(parents=True)
    listing: dict[str, dict[str, str | int]] = {}
    for name, content in contents.items():
        with (directory / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        listing[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    sync_directory(directory)
    return listing


def seal(directory: Path) -> dict[str, dict[str, str | int]]:
    """Force the files that lie in a directory, and it, to disk; returns what `write_durably` returns."""
    listing: dict[str, dict[str, str | int]] = {}
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        listing[path.name] = {"sha256": digest, "size": path.stat().st_size}
    sync_directory(directory)
    return listing


def json_bytes(fields: Mapping[str, object]) -> bytes:
    """JSON for people and diffs: indented, keys in order, a newline at the end. No NaN."""
    return json.dumps(fields, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to disk; after a rename, this is what makes it last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
