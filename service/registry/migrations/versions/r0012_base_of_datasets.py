"""By which base model's template and tokenizer a dataset was checked and counted. Of datasets from before it
was not told; there was one base model then.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision: str | None = "0011"


def upgrade() -> None:
    """Add the column."""
    op.add_column("datasets", sa.Column("base_model", sa.Text(), nullable=False, server_default=""))
