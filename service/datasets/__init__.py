"""Training files: where they come from, checked by `trainer.inspection` as they arrive, kept immutable."""

from service.datasets.hub import Hub, HubSplit
from service.datasets.local_files import LocalFiles, chunks_of
from service.datasets.store import DatasetStore, UploadLimits

__all__ = ["DatasetStore", "Hub", "HubSplit", "LocalFiles", "UploadLimits", "chunks_of"]
