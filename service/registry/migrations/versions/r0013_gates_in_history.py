"""Whether an alias was gated from each of its changes on. Of changes from before it was not recorded.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    """Add the column."""
    op.add_column("alias_changes", sa.Column("is_gated", sa.Boolean(), nullable=True))
