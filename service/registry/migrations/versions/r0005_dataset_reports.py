"""What was found in a dataset's file.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    """Add the column."""
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("report", sa.Text(), nullable=True))
