"""What jobs make smaller.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    """Every job before this one was supervised."""
    op.add_column("jobs", sa.Column("objective", sa.Text(), nullable=False, server_default="supervised"))
