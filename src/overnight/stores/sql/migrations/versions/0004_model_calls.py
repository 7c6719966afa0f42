"""What runs have asked of language models, for their account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
usable_from = "0003"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ENDINGS = "ending IN ('done', 'error', 'aborted', 'lost')"


def upgrade() -> None:
    """One more table, which programs of before need not know."""
    op.create_table(
        "model_calls",
        sa.Column("pk", KEY, nullable=False),
        sa.Column("run_pk", KEY, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("ending", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        *_counts("input", "cached", "cache_write", "output", "reasoning"),
        sa.Column("cost", KEY, nullable=True),
        sa.Column("at", KEY, nullable=False),
        sa.CheckConstraint(ENDINGS, name=op.f("ck_model_calls_ending")),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_model_calls")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_model_calls_run_pk"), "model_calls", ["run_pk"], unique=False)


def _counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, KEY, server_default=sa.text("0"), nullable=False) for name in names]


def downgrade() -> None:
    """The account is lost."""
    op.drop_table("model_calls")
