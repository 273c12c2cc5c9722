"""Which version a job starts from. Until now all began with fresh weights.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("start_version", sa.Text(), nullable=True))
