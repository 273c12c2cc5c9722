"""Brings a database to the newest schema, in one transaction; refuses one that a newer release wrote."""

from functools import cache
from pathlib import Path

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.errors import WrongState


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` that are missing, inside the caller's transaction.

    Raises WrongState (SCHEMA_TOO_NEW).
    """
    script = _migrations()
    context = MigrationContext.configure(connection)
    present = context.get_current_heads()
    known = {migration.revision for migration in script.walk_revisions()}
    for unknown in sorted(set(present) - known):
        raise WrongState(
            f"the registry has schema {unknown}, which a newer release wrote; this one knows up to "
            f"{script.get_current_head()}. Start the newer release, or restore a backup.",
            state=unknown,
            allowed=sorted(known),
            reason="SCHEMA_TOO_NEW",
        )
    missing = list(script.iterate_revisions(revision, present or "base"))
    with Operations.context(context):
        for migration in reversed(missing):
            migration.module.upgrade()
    if missing:
        context.stamp(script, revision)


@cache
def _migrations() -> ScriptDirectory:
    """Read once in a process: reading them takes longer than running them."""
    return ScriptDirectory(Path(__file__).parent / "migrations")
