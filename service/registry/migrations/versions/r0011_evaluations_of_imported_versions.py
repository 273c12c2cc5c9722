"""Evaluations of versions that were imported, and so have no job.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision: str | None = "0010"


def upgrade() -> None:
    """Allow evaluations without a job."""
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("evaluations", "job_id", existing_type=sa.Text(), nullable=True)
        return
    # SQLite cannot alter a column. What made the table is kept word for word: alembic's own way loses its
    # AUTOINCREMENT. Nothing refers to it.
    query = sa.text(
        "SELECT sql FROM sqlite_master WHERE tbl_name = 'evaluations' AND sql IS NOT NULL ORDER BY type DESC"
    )
    made = list(op.get_bind().execute(query).scalars())
    op.execute("CREATE TABLE kept_evaluations AS SELECT * FROM evaluations")
    op.execute("DROP TABLE evaluations")
    for statement in made:
        op.execute(statement.replace("job_id TEXT NOT NULL", "job_id TEXT"))
    op.execute("INSERT INTO evaluations SELECT * FROM kept_evaluations")
    op.execute("DROP TABLE kept_evaluations")
