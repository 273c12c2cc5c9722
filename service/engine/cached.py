"""Which adapters an engine has in memory, guessed from what it was asked; and what it would have to read.

vLLM tells nobody. It keeps those that were used last and reads others from their directories again, and a
directory that is not there then ends it for everybody. The guess is about one engine process.
"""

from collections import OrderedDict
from pathlib import Path

_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What vLLM reads of a directory."""


class CachedAdapters:
    """See the module. Belongs to one event loop."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        """How many it keeps; None: not known, and all count as kept."""
        self._directories: dict[str, str] = {}
        self._used: OrderedDict[str, None] = OrderedDict()
        """Least recently used first."""

    @property
    def loaded(self) -> frozenset[str]:
        """Adapters that were loaded and not unloaded since, in memory or not."""
        return frozenset(self._directories)

    def load(self, name: str, directory: str) -> None:
        """It was loaded from there."""
        self._directories[name] = directory
        self.use(name)

    def unload(self, name: str) -> None:
        """Its name is gone. Its weights stay until others need the place: the engine is not told of it."""
        self._directories.pop(name, None)

    def clear(self) -> None:
        """The engine is a new one."""
        self._directories.clear()
        self._used.clear()

    def use(self, name: str) -> None:
        """It is being asked."""
        self._used[name] = None
        self._used.move_to_end(name)
        while self.most is not None and len(self._used) > self.most:
            self._used.popitem(last=False)

    def has(self, name: str) -> bool:
        """Whether asking it costs no reading."""
        return self.most is None or name in self._used

    def lacks_files(self, name: str) -> bool:
        """Whether the engine would have to read it, and could not. Blocks on disk."""
        directory = self._directories.get(name)
        if directory is None or self.has(name):
            return False
        return not all((Path(directory) / file).is_file() for file in _FILES)
