"""By which encoder a passage's vectors were made, so that they are made anew after an upgrade that changes it."""

import sqlalchemy as sa
from alembic import op

from app.db.bootstrap import LOOKUP, OWNER

revision = "0003"
down_revision = "0002"

# Both sides of the index are empty while all passages are of one encoder, however many there are.
FUNCTION = """
    CREATE FUNCTION stale_documents(p_encoder text, p_limit integer)
    RETURNS TABLE (workspace_id uuid, document_id uuid) LANGUAGE sql STABLE AS $$
    SELECT DISTINCT s.workspace_id, s.document_id FROM (
        (SELECT p.workspace_id, p.document_id FROM passages p WHERE p.encoder < p_encoder ORDER BY p.encoder LIMIT p_limit)
        UNION ALL
        (SELECT p.workspace_id, p.document_id FROM passages p WHERE p.encoder > p_encoder ORDER BY p.encoder LIMIT p_limit)) s $$
    SECURITY DEFINER SET search_path = pg_catalog, public
"""


def upgrade() -> None:
    op.execute(f"SET LOCAL ROLE {OWNER}")
    # Nobody wrote down what made the vectors that are there: '' is no encoder, so they are made anew.
    op.add_column("passages", sa.Column("encoder", sa.Text(), server_default="", nullable=False))
    op.create_index(op.f("ix_passages_encoder"), "passages", ["encoder"])
    op.execute(f"GRANT SELECT (encoder, document_id) ON passages TO {LOOKUP}")
    role = op.get_context().config.attributes["app_role"]
    op.execute(f"SET LOCAL ROLE {LOOKUP}")
    op.execute(FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION stale_documents(text, integer) FROM PUBLIC")
    op.execute(f'GRANT EXECUTE ON FUNCTION stale_documents(text, integer) TO "{role}"')
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute(f"SET LOCAL ROLE {LOOKUP}")
    op.execute("DROP FUNCTION stale_documents(text, integer)")
    op.execute(f"SET LOCAL ROLE {OWNER}")
    op.execute(f"REVOKE ALL (encoder, document_id) ON passages FROM {LOOKUP}")
    op.drop_index(op.f("ix_passages_encoder"), "passages")
    op.drop_column("passages", "encoder")
    op.execute("RESET ROLE")
