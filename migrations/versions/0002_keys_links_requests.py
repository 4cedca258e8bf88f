"""What makes a POST of an assistant repeatable, tells a session opened by a link, and follows a question through the logs."""

import sqlalchemy as sa
from alembic import op

from app.db.bootstrap import OWNER

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(f"SET LOCAL ROLE {OWNER}")
    op.add_column("assistants", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.create_unique_constraint(
        op.f("uq_assistants_workspace_id_idempotency_key"), "assistants", ["workspace_id", "idempotency_key"]
    )
    op.add_column("member_sessions", sa.Column("by_link", sa.Boolean(), server_default="false", nullable=False))
    op.add_column("messages", sa.Column("request_id", sa.Text(), nullable=True))
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute(f"SET LOCAL ROLE {OWNER}")
    op.drop_column("messages", "request_id")
    op.drop_column("member_sessions", "by_link")
    op.drop_constraint("uq_assistants_workspace_id_idempotency_key", "assistants")
    op.drop_column("assistants", "idempotency_key")
    op.execute("RESET ROLE")
