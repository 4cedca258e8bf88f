"""Brings a database to the schema of this release (`retort migrate`, and `retort up` before anything else starts)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from app.db.bootstrap import bootstrap, plain_url

MIGRATIONS = Path(__file__).parents[2] / "migrations"


def alembic_config(admin_url: str, app_role: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", plain_url(admin_url).replace("%", "%%"))
    config.attributes["app_role"] = app_role
    return config


def migrate(admin_url: str, app_url: str, revision: str = "head") -> None:
    """Bootstrap the roles and run the migrations up (or down) to `revision`."""
    role = bootstrap(admin_url, app_url)
    config = alembic_config(admin_url, role)
    if revision in ("base",) or revision.startswith("-"):
        command.downgrade(config, revision)
    else:
        command.upgrade(config, revision)
