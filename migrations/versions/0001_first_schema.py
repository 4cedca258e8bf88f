"""The first schema: accounts, assistants, content, conversations; forced row-level security; the lookups that precede a workspace."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

from app.db.bootstrap import LOOKUP, OWNER

revision = "0001"
down_revision = None

TENANT_TABLES = (
    "members", "sign_in_links", "member_sessions", "api_keys",
    "assistants", "assistant_sources",
    "sources", "documents", "passages",
    "visitors", "conversations", "messages", "state_snapshots",
)  # fmt: skip

# After a transaction the setting is '' rather than absent: nullif turns both into "no workspace", which matches nothing.
CURRENT = "nullif(current_setting('app.workspace_id', true), '')::uuid"

# What each lookup may read or write, column by column: `retort_lookup` bypasses row-level security, so it gets no more.
LOOKUP_GRANTS = (
    "SELECT (id, workspace_id, member_id, token_hash, csrf_token, expires_at) ON member_sessions",
    "SELECT (id, workspace_id, token_hash, expires_at, used_at) ON sign_in_links",
    "SELECT (id, workspace_id, member_id, token_hash, scopes, revoked_at) ON api_keys",
    "SELECT (id, workspace_id, email) ON members",
    "SELECT (id, workspace_id, slug) ON assistants",
    "SELECT (id, workspace_id, conversation_id, status, fence, attempt, created_at, started_at, heartbeat_at, error) ON messages",
    "UPDATE (status, fence, attempt, generator, started_at, heartbeat_at, finished_at, error) ON messages",
    "SELECT (id, workspace_id, status, heartbeat_at, created_at) ON sources",
    "SELECT (id, workspace_id, source_id, tsv) ON passages",
    "SELECT ON assistant_sources",
)

FUNCTIONS = {
    "lookup_member_session(p_hash text)": """
        RETURNS TABLE (workspace_id uuid, member_id uuid, session_id uuid, csrf_token text, expires_at timestamptz) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, member_id, id, csrf_token, expires_at FROM member_sessions WHERE token_hash = p_hash AND expires_at > now() $$""",
    "lookup_sign_in_link(p_hash text)": """
        RETURNS TABLE (workspace_id uuid, link_id uuid) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, id FROM sign_in_links WHERE token_hash = p_hash AND expires_at > now() AND used_at IS NULL $$""",
    "lookup_api_key(p_hash text)": """
        RETURNS TABLE (workspace_id uuid, member_id uuid, key_id uuid, scopes text[]) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, member_id, id, scopes FROM api_keys WHERE token_hash = p_hash AND revoked_at IS NULL $$""",
    "lookup_member(p_email text)": """
        RETURNS TABLE (workspace_id uuid, member_id uuid) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, id FROM members WHERE email = p_email $$""",
    "lookup_assistant(p_slug text)": """
        RETURNS TABLE (workspace_id uuid, assistant_id uuid) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, id FROM assistants WHERE slug = p_slug $$""",
    # The workspace that was served least in the last minute comes first, then the oldest message: a flood waits behind its own.
    "claim_message(p_generator text)": """
        RETURNS TABLE (workspace_id uuid, conversation_id uuid, message_id uuid, fence integer, attempt integer) LANGUAGE sql VOLATILE AS $$
        WITH queued AS (SELECT DISTINCT m.workspace_id FROM messages m WHERE m.status = 'queued'),
        served AS (
            SELECT q.workspace_id, (SELECT count(*) FROM messages s WHERE s.workspace_id = q.workspace_id
                                    AND s.started_at > now() - interval '1 minute') AS answers FROM queued q),
        next AS (
            SELECT m.id FROM messages m JOIN served USING (workspace_id) WHERE m.status = 'queued'
            ORDER BY served.answers, m.created_at, m.id LIMIT 1 FOR UPDATE OF m SKIP LOCKED)
        UPDATE messages m SET status = 'running', fence = m.fence + 1, attempt = m.attempt + 1, generator = p_generator,
            started_at = coalesce(m.started_at, now()), heartbeat_at = now()
        FROM next WHERE m.id = next.id RETURNING m.workspace_id, m.conversation_id, m.id, m.fence, m.attempt $$""",
    "open_messages()": """
        RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM messages WHERE status IN ('queued', 'running') $$""",
    # The fence rises when an answer is freed, so that a generator thought dead publishes nothing more.
    "sweep_messages(p_stale interval, p_attempts integer)": """
        RETURNS TABLE (workspace_id uuid, conversation_id uuid, message_id uuid, status text) LANGUAGE sql VOLATILE AS $$
        WITH stale AS (SELECT m.id FROM messages m WHERE m.status = 'running' AND m.heartbeat_at < now() - p_stale FOR UPDATE SKIP LOCKED)
        UPDATE messages m SET status = CASE WHEN m.attempt < p_attempts THEN 'queued' ELSE 'failed' END, fence = m.fence + 1,
            heartbeat_at = NULL, finished_at = CASE WHEN m.attempt < p_attempts THEN NULL ELSE now() END,
            error = CASE WHEN m.attempt < p_attempts THEN NULL ELSE 'The answer could not be written. Please ask again.' END
        FROM stale WHERE m.id = stale.id RETURNING m.workspace_id, m.conversation_id, m.id, m.status $$""",
    "unread_sources(p_stale interval)": """
        RETURNS TABLE (workspace_id uuid, source_id uuid) LANGUAGE sql STABLE AS $$
        SELECT workspace_id, id FROM sources WHERE (status = 'waiting' AND created_at < now() - interval '5 seconds')
            OR (status = 'reading' AND coalesce(heartbeat_at, created_at) < now() - p_stale) ORDER BY created_at $$""",
    # `@@` is not leakproof: under a policy the planner would not use the GIN index. So the function filters by the
    # transaction's own workspace, and only identifiers and ranks leave it; the caller reads the rows under its policies.
    "search_text(p_assistant uuid, p_query text, p_limit integer)": """
        RETURNS TABLE (passage_id uuid, rank real) LANGUAGE sql STABLE AS $$
        SELECT p.id, ts_rank_cd(p.tsv, q.query) FROM passages p, (SELECT p_query::tsquery AS query) q
        WHERE p.tsv @@ q.query AND p.workspace_id = nullif(current_setting('app.workspace_id', true), '')::uuid
            AND p.source_id IN (SELECT s.source_id FROM assistant_sources s WHERE s.assistant_id = p_assistant)
        ORDER BY 2 DESC, 1 LIMIT p_limit $$""",
}


def upgrade() -> None:
    op.execute(f"SET LOCAL ROLE {OWNER}")
    op.execute(
        "CREATE FUNCTION immutable_join(text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS "
        "$$ SELECT array_to_string($1, ' ') $$"
    )
    create_tables()
    for table in ("workspaces", *TENANT_TABLES):
        column = "id" if table == "workspaces" else "workspace_id"
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_workspace ON {table} USING ({column} = {CURRENT}) WITH CHECK ({column} = {CURRENT})")
    role = op.get_context().config.attributes["app_role"]
    op.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON {", ".join(("workspaces", *TENANT_TABLES))} TO "{role}"')
    for grant in LOOKUP_GRANTS:
        op.execute(f"GRANT {grant} TO {LOOKUP}")
    op.execute(f"SET LOCAL ROLE {LOOKUP}")
    for signature, body in FUNCTIONS.items():
        op.execute(
            f"CREATE FUNCTION {signature} {body} SECURITY DEFINER SET search_path = pg_catalog, public".replace(":", r"\:")
        )
        arguments = ", ".join(part.split()[-1] for part in signature.partition("(")[2].rstrip(")").split(", ") if part)
        name = f"{signature.partition('(')[0]}({arguments})"
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
        op.execute(f'GRANT EXECUTE ON FUNCTION {name} TO "{role}"')
    op.execute("RESET ROLE")


def downgrade() -> None:
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    for table in reversed(("workspaces", *TENANT_TABLES)):
        op.execute(f"DROP TABLE {table} CASCADE")
    op.execute("DROP FUNCTION immutable_join(text[])")


def create_tables() -> None:
    op.create_table(
        "workspaces",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("slug", name=op.f("uq_workspaces_slug")),
    )
    op.create_table(
        "assistants",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("persona", sa.Text(), nullable=False),
        sa.Column("tone", sa.Text(), server_default="friendly", nullable=False),
        sa.Column("greeting", sa.Text(), nullable=False),
        sa.Column("intro", sa.Text(), server_default="", nullable=False),
        sa.Column("contact_email", sa.Text(), nullable=True),
        sa.Column("contact_url", sa.Text(), nullable=True),
        sa.Column("brand_color", sa.Text(), server_default="#0b6e63", nullable=False),
        sa.Column("suggested_questions", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("allowed_origins", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("mode", sa.Text(), server_default="wording", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("mode IN ('wording', 'evidence')", name=op.f("ck_assistants_mode")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_assistants_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assistants")),
        sa.UniqueConstraint("slug", name=op.f("uq_assistants_slug")),
    )
    op.create_index(op.f("ix_assistants_workspace_id"), "assistants", ["workspace_id"])
    op.create_table(
        "members",
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'agent', 'viewer')", name=op.f("ck_members_role")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_members_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("email", name=op.f("uq_members_email")),
    )
    op.create_index(op.f("ix_members_workspace_id"), "members", ["workspace_id"])
    op.create_table(
        "sources",
        sa.Column("kind", sa.Text(), server_default="website", nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('website')", name=op.f("ck_sources_kind")),
        sa.CheckConstraint("status IN ('waiting', 'reading', 'read', 'failed')", name=op.f("ck_sources_status")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_sources_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("workspace_id", "url", name=op.f("uq_sources_workspace_id_url")),
    )
    op.create_index(op.f("ix_sources_workspace_id"), "sources", ["workspace_id"])
    op.create_table(
        "api_keys",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_api_keys_member_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_api_keys_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_keys_token_hash")),
    )
    op.create_index(op.f("ix_api_keys_member_id"), "api_keys", ["member_id"])
    op.create_index(op.f("ix_api_keys_workspace_id"), "api_keys", ["workspace_id"])
    op.create_table(
        "assistant_sources",
        sa.Column("assistant_id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["assistant_id"], ["assistants.id"], name=op.f("fk_assistant_sources_assistant_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_assistant_sources_source_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_assistant_sources_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("assistant_id", "source_id", name=op.f("pk_assistant_sources")),
    )
    op.create_index(op.f("ix_assistant_sources_source_id"), "assistant_sources", ["source_id"])
    op.create_index(op.f("ix_assistant_sources_workspace_id"), "assistant_sources", ["workspace_id"])
    op.create_table(
        "documents",
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("depth", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("words", sa.Integer(), server_default="0", nullable=False),
        sa.Column("bytes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("blocks", postgresql.JSONB(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('waiting', 'fetching', 'fetched', 'read', 'unchanged', 'skipped', 'failed')",
            name=op.f("ck_documents_status"),
        ),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_documents_source_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_documents_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("source_id", "url", name=op.f("uq_documents_source_id_url")),
    )
    op.create_index("ix_documents_source_id_status", "documents", ["source_id", "status"])
    op.create_index(op.f("ix_documents_workspace_id"), "documents", ["workspace_id"])
    op.create_table(
        "member_sessions",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("csrf_token", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_member_sessions_member_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_member_sessions_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_member_sessions_token_hash")),
    )
    op.create_index(op.f("ix_member_sessions_member_id"), "member_sessions", ["member_id"])
    op.create_index(op.f("ix_member_sessions_workspace_id"), "member_sessions", ["workspace_id"])
    op.create_table(
        "sign_in_links",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_sign_in_links_member_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_sign_in_links_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sign_in_links_token_hash")),
    )
    op.create_index(op.f("ix_sign_in_links_member_id"), "sign_in_links", ["member_id"])
    op.create_index(op.f("ix_sign_in_links_workspace_id"), "sign_in_links", ["workspace_id"])
    op.create_table(
        "visitors",
        sa.Column("assistant_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["assistant_id"], ["assistants.id"], name=op.f("fk_visitors_assistant_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name=op.f("fk_visitors_member_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_visitors_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_visitors")),
    )
    op.create_index(op.f("ix_visitors_assistant_id"), "visitors", ["assistant_id"])
    op.create_index(op.f("ix_visitors_member_id"), "visitors", ["member_id"])
    op.create_index(op.f("ix_visitors_workspace_id"), "visitors", ["workspace_id"])
    op.create_table(
        "conversations",
        sa.Column("assistant_id", sa.Uuid(), nullable=False),
        sa.Column("visitor_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_ordinal", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state_key", sa.Text(), nullable=True),
        sa.Column("state_ordinal", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state_tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("persona", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["assistant_id"], ["assistants.id"], name=op.f("fk_conversations_assistant_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["visitor_id"], ["visitors.id"], name=op.f("fk_conversations_visitor_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_conversations_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
    )
    op.create_index(op.f("ix_conversations_assistant_id"), "conversations", ["assistant_id"])
    op.create_index(op.f("ix_conversations_visitor_id"), "conversations", ["visitor_id"])
    op.create_index(op.f("ix_conversations_workspace_id"), "conversations", ["workspace_id"])
    op.create_table(
        "passages",
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("heading_path", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("fragment", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("embedding", HALFVEC(dim=384), nullable=False),
        sa.Column("sentences", postgresql.JSONB(), nullable=False),
        sa.Column("sentence_vectors", sa.LargeBinary(), nullable=False),
        sa.Column(
            "tsv",
            postgresql.TSVECTOR(),
            sa.Computed(
                "setweight(to_tsvector('english', title || ' ' || immutable_join(heading_path)), 'A')"
                " || setweight(to_tsvector('english', text), 'B')",
                persisted=True,
            ),
            nullable=True,
        ),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["document_id"], ["documents.id"], name=op.f("fk_passages_document_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_passages_source_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_passages_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passages")),
        sa.UniqueConstraint("document_id", "ordinal", name=op.f("uq_passages_document_id_ordinal")),
    )
    op.create_index(
        "ix_passages_embedding",
        "passages",
        ["embedding"],
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "halfvec_ip_ops"},
    )
    op.create_index(op.f("ix_passages_source_id"), "passages", ["source_id"])
    op.create_index("ix_passages_tsv", "passages", ["tsv"], postgresql_using="gin")
    op.create_index(op.f("ix_passages_workspace_id"), "passages", ["workspace_id"])
    op.create_table(
        "messages",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), server_default="", nullable=False),
        sa.Column("reply_to", sa.Uuid(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("sentences", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("evidence", postgresql.JSONB(), nullable=True),
        sa.Column("citations", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("nearest", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("refused", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("trace", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("timings", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("tokens", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("superseded_by", sa.Uuid(), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("generator", sa.Text(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_ids", postgresql.ARRAY(sa.Integer()), nullable=True),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('visitor', 'assistant', 'agent')", name=op.f("ck_messages_role")),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'superseded')", name=op.f("ck_messages_status")
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_messages_conversation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["reply_to"], ["messages.id"], name=op.f("fk_messages_reply_to"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["superseded_by"], ["messages.id"], name=op.f("fk_messages_superseded_by"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_messages_workspace_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("conversation_id", "idempotency_key", name=op.f("uq_messages_conversation_id_idempotency_key")),
        sa.UniqueConstraint("conversation_id", "ordinal", name=op.f("uq_messages_conversation_id_ordinal")),
    )
    op.create_index(
        "ix_messages_open",
        "messages",
        ["workspace_id", "created_at"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_messages_started", "messages", ["workspace_id", "started_at"], postgresql_where=sa.text("started_at IS NOT NULL")
    )
    op.create_index(op.f("ix_messages_workspace_id"), "messages", ["workspace_id"])
    op.create_table(
        "state_snapshots",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("state_key", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_state_snapshots_conversation_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_state_snapshots_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_state_snapshots")),
    )
    op.create_index(op.f("ix_state_snapshots_workspace_id"), "state_snapshots", ["workspace_id"])
