"""The one way to open a transaction.

`Database.transaction(workspace_id)` begins a transaction bound to a workspace: an `after_begin` hook sets
`app.workspace_id`, which the row-level security policies compare. Without a workspace a transaction sees no tenant's
row; what must look before a workspace is known calls the functions of `app/db/lookups.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

# Whoever opens a transaction knows every table: a foreign key resolves only when both ends are mapped.
import app.db.models  # noqa: F401

WORKSPACE = "workspace_id"


def driver_url(url: str) -> str:
    """The URL with psycopg named as the driver, whatever dialect prefix it was written with."""
    _, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}"


class TenantSession(Session):
    """A session whose every transaction sets the workspace it was opened for."""


@event.listens_for(TenantSession, "after_begin")
def _set_workspace(session: Session, _transaction: object, connection: object) -> None:
    workspace = session.info.get(WORKSPACE)
    connection.execute(  # type: ignore[attr-defined]
        text("SELECT set_config('app.workspace_id', :workspace, true)"), {"workspace": str(workspace) if workspace else ""}
    )


class Database:
    """A connection pool. One a process; `await close()` when the process ends."""

    def __init__(self, url: str, *, pool_size: int = 5, max_overflow: int = 5, application: str = "retort") -> None:
        self.engine = create_async_engine(
            driver_url(url),
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_pre_ping=True,
            pool_timeout=5,
            connect_args={"application_name": application, "connect_timeout": 5},
        )
        self._sessions = async_sessionmaker(self.engine, sync_session_class=TenantSession, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self, workspace_id: UUID | None) -> AsyncIterator[AsyncSession]:
        """Open a session in one transaction: committed at the end of the block, rolled back by an exception."""
        async with self._sessions(info={WORKSPACE: workspace_id}) as session, session.begin():
            yield session

    async def close(self) -> None:
        await self.engine.dispose()
