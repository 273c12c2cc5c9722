"""What a run that watches itself tells of a job: its verdict and its best step.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Add the columns; jobs from before have no verdict."""
    op.add_column("jobs", sa.Column("fit", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("best_step", sa.Integer(), nullable=False, server_default="0"))
