"""Versions that no job made: they were imported. Until now every version had its job.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"

_TABLES = ("evaluations", "version_changes", "versions")
"""The table, and before it those that refer to it: SQLite would not let it go while they do."""


def upgrade() -> None:
    """Allow versions without a job."""
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("versions", "job_id", existing_type=sa.Text(), nullable=True)
        return
    # SQLite cannot alter a column, and a transaction cannot turn its checks of references off.
    made = {name: _statements(name) for name in _TABLES}
    for name in _TABLES:
        op.execute(f"CREATE TABLE kept_{name} AS SELECT * FROM {name}")  # noqa: S608 - names of ours
        op.execute(f"DROP TABLE {name}")
    for name in reversed(_TABLES):
        for statement in made[name]:
            op.execute(
                statement.replace("job_id TEXT NOT NULL", "job_id TEXT") if name == "versions" else statement
            )
        op.execute(f"INSERT INTO {name} SELECT * FROM kept_{name}")  # noqa: S608 - names of ours
        op.execute(f"DROP TABLE kept_{name}")


def _statements(table: str) -> list[str]:
    """What made a table, and then its indices."""
    query = sa.text(
        "SELECT sql FROM sqlite_master WHERE tbl_name = :name AND sql IS NOT NULL ORDER BY type DESC"
    )
    return list(op.get_bind().execute(query, {"name": table}).scalars())
