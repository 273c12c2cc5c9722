"""What was said of a job's settings when it was created. Jobs from before were told nothing.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    """Add the column."""
    op.add_column("jobs", sa.Column("warnings", sa.Text(), nullable=False, server_default="[]"))
