"""The first schema: conversations, messages, tool results, artifacts and their versions.

Written out rather than taken from tables.py, which goes on changing while this must not.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)
ITEM_STATUS = (
    "deleted_at IS NOT NULL OR status IN ('pending', 'streaming', 'complete', 'interrupted', 'error')"
)


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("conversation_uid", sa.Uuid, nullable=False),
        sa.Column("owner", NAME, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("metadata", pg.JSON),
        sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("head_id", sa.Text),
        sa.Column("last_message_at", TIME),
        *common(),
        sa.Column("purge_horizon", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("emptied", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("conversation_uid", name="conversations_pkey"),
        postgresql_with={"fillfactor": 85},
    )
    op.create_index(
        "conversations_activity",
        "conversations",
        ["owner", "archived", sa.text("coalesce(last_message_at, created_at)"), "conversation_uid"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "conversations_deleted",
        "conversations",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL AND NOT emptied"),
    )
    create_items(
        "messages",
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("parts", pg.JSON),
        sa.Column("metadata", pg.JSON),
        sa.Column("parent_id", sa.Text),
        sa.Column("tool_result_ids", pg.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("artifact_ids", pg.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    )
    create_items(
        "tool_results",
        sa.Column("message_id", sa.Text),
        sa.Column("tool_call_id", sa.Text),
        sa.Column("tool_name", sa.Text),
        sa.Column("state", sa.Text),
        sa.Column("input", pg.JSON),
        sa.Column("output", pg.JSON),
        sa.Column("error_text", sa.Text),
    )
    create_items(
        "artifacts",
        sa.Column("message_id", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("title", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("media_type", sa.Text),
        sa.Column("content", sa.Text),
        sa.Column("metadata", pg.JSON),
        sa.Column("head_number", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("head_hash", sa.Text),
    )
    op.create_table(
        "artifact_versions",
        sa.Column("conversation_uid", sa.Uuid, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("conversation_uid", "id", "number", name="artifact_versions_pkey"),
    )


def downgrade() -> None:
    for table in ("artifact_versions", "artifacts", "tool_results", "messages", "conversations"):
        op.drop_table(table)


def common() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("revision", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME),
    )


def create_items(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(
        name,
        sa.Column("conversation_uid", sa.Uuid, nullable=False),
        sa.Column("id", NAME, nullable=False),
        *columns,
        sa.Column("position", NAME, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_reason", sa.Text),
        sa.Column("settled_from", sa.Text),
        *common(),
        sa.PrimaryKeyConstraint("conversation_uid", "id", name=f"{name}_pkey"),
        sa.CheckConstraint(ITEM_STATUS, name=op.f(f"{name}_status_check")),
        postgresql_with={"fillfactor": 85},
    )
    op.create_index(
        f"{name}_deleted", name, ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
