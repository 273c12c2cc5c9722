"""Directories that are whole or do not count: files, and a manifest with the SHA-256 of each, by one rename.

It does not know what the files mean.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.files import sync_directory, write_durably

_MANIFEST = "manifest.json"


def write_whole(final: Path, contents: Mapping[str, bytes]) -> None:
    """Write `final` beside its place, force it to disk, and rename it there, over a damaged one.

    Raises OSError (ENOSPC when the disk is full).
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = final.parent / f".writing-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    listing = write_durably(beside / "content", contents)
    # The manifest comes last and alone: a directory without a right one is not whole.
    write_durably(beside / "manifest", {_MANIFEST: json.dumps(listing).encode()})
    (beside / "manifest" / _MANIFEST).rename(beside / "content" / _MANIFEST)
    sync_directory(beside / "content")
    shutil.rmtree(final, ignore_errors=True)
    (beside / "content").rename(final)
    sync_directory(final.parent)
    shutil.rmtree(beside)


def read_whole(directory: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Contents of the named files, each as the manifest describes it.

    Raises OSError, or ValueError, KeyError or TypeError, where anything is not as it was written.
    """
    listing = json.loads((directory / _MANIFEST).read_bytes())
    contents = {}
    for name in names:
        content = (directory / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != listing[name]["sha256"]:
            raise ValueError(f"{name} is not as it was written")
        contents[name] = content
    return contents
