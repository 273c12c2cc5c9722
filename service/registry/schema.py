"""Brings a database to the newest schema, in one transaction; refuses one that a newer release wrote."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.errors import WrongState


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the caller's transaction. Raises WrongState (SCHEMA_TOO_NEW)."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    for present in MigrationContext.configure(connection).get_current_heads():
        if present not in known:
            raise WrongState(
                f"the registry has schema {present}, which a newer release wrote; this one knows up to "
                f"{script.get_current_head()}. Start the newer release, or restore a backup.",
                state=present,
                allowed=sorted(known),
                reason="SCHEMA_TOO_NEW",
            )
    command.upgrade(config, "head")
