"""Uploaded training files: checked by `trainer.inspection` while they arrive, kept immutable."""

from service.datasets.store import DatasetStore, UploadLimits

__all__ = ["DatasetStore", "UploadLimits"]
