"""Aliases of adapters, and what was done to them. Until now a plain name meant the newest ACTIVE version.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "aliases",
        sa.Column("adapter_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("is_gated", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_aliases_adapter_id")),
        sa.PrimaryKeyConstraint("adapter_id", "id", name=op.f("pk_aliases")),
    )
    op.create_table(
        "alias_changes",
        sa.Column("adapter_id", sa.Text(), nullable=False),
        sa.Column("alias_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("shares", sa.Text(), nullable=False),
        sa.Column("returns_to", sa.Integer(), nullable=True),
        sa.Column("is_forced", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["adapter_id", "alias_id"],
            ["aliases.adapter_id", "aliases.id"],
            name=op.f("fk_alias_changes_adapter_id_alias_id"),
        ),
        sa.PrimaryKeyConstraint("adapter_id", "alias_id", "revision", name=op.f("pk_alias_changes")),
    )
