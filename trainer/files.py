"""Files that survive a crash: whole on disk before anybody can see their name."""

import hashlib
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


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to disk; after a rename, this is what makes it last."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
