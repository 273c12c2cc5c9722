"""What the rows of a dataset are, and what they teach. Until now all were conversations.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add both columns."""
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("kind", sa.Text(), nullable=False, server_default="conversations"))
        table.add_column(sa.Column("task", sa.Text(), nullable=True))
