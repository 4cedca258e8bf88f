"""What a superuser does once per database: roles and the vector extension. Idempotent.

- `retort_owner` owns the tables and cannot log in.
- `retort_lookup` owns the SECURITY DEFINER functions; it bypasses row-level security and cannot log in.
- the role of `RETORT_DATABASE_URL` is the application's: it owns nothing and cannot bypass a policy.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

OWNER = "retort_owner"
LOOKUP = "retort_lookup"


def plain_url(url: str) -> str:
    """A libpq URL, whatever SQLAlchemy driver it named."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def bootstrap(admin_url: str, app_url: str) -> str:
    """Create roles and extension through `admin_url`; returns the name of the application's role.

    Raises ValueError when the application would run as a superuser or as the role that bootstraps.
    """
    app = make_url(app_url)
    if not app.username or app.username == make_url(admin_url).username:
        raise ValueError(
            "RETORT_DATABASE_URL must name a role of its own, not the superuser of RETORT_ADMIN_DATABASE_URL: "
            "row-level security does not bind a superuser."
        )
    role = sql.Identifier(app.username)
    with psycopg.connect(plain_url(admin_url), autocommit=True) as connection:
        # Two processes may migrate at once: the lock makes the second wait.
        connection.execute("SELECT pg_advisory_lock(hashtext('retort bootstrap'))")
        _ensure_role(connection, OWNER, sql.SQL("NOLOGIN NOSUPERUSER NOBYPASSRLS"))
        _ensure_role(connection, LOOKUP, sql.SQL("NOLOGIN NOSUPERUSER BYPASSRLS"))
        _ensure_role(connection, app.username, sql.SQL("LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"))
        if app.password:
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(app.password)))
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(
            sql.SQL("GRANT CREATE, USAGE ON SCHEMA public TO {}, {}").format(*map(sql.Identifier, (OWNER, LOOKUP)))
        )
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
    return app.username


def _ensure_role(connection: psycopg.Connection, name: str, options: sql.SQL) -> None:
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    verb = sql.SQL("ALTER") if exists else sql.SQL("CREATE")
    connection.execute(sql.SQL("{} ROLE {} {}").format(verb, sql.Identifier(name), options))
