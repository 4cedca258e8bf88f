"""What makes a POST of an assistant repeatable, tells a session opened by a link, and follows a question through the logs."""

import sqlalchemy as sa
from alembic import op

from app.db.bootstrap import OWNER

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Before this release every page that was opened in a new browser stored a visitor. Their tokens stay good: the row is
    # made with the first conversation now. No workspace is set here; the superuser alone sees past the policies.
    op.execute(
        "DELETE FROM visitors v WHERE v.member_id IS NULL AND NOT EXISTS (SELECT 1 FROM conversations c WHERE c.visitor_id = v.id)"
    )
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
