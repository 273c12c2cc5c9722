"""Uploaded training files: checked while they arrive, kept immutable, shown as the model sees them."""

from service.datasets.draft import Draft, PreviewRow, preview
from service.datasets.store import DatasetStore, UploadLimits

__all__ = ["DatasetStore", "Draft", "PreviewRow", "UploadLimits", "preview"]
