"""A registry's file, made by the migrations once for all tests of a process."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import create_engine

from service.registry.schema import upgrade


def registry_url(home: Path) -> str:
    """A database of the newest schema below `home`, empty unless there was one already."""
    path = home / "registry.db"
    if not path.exists():
        path.write_bytes(_empty())
    return f"sqlite+aiosqlite:///{path}"


@cache
def _empty() -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "empty.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
        return path.read_bytes()
