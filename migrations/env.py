"""Alembic's environment: runs as the superuser of RETORT_ADMIN_DATABASE_URL; migrations hand what they make to its owner."""

from alembic import context
from sqlalchemy import create_engine, text

from app.db.models import Base
from app.db.session import driver_url

url = context.config.get_main_option("sqlalchemy.url")
if not url:
    raise SystemExit("Run migrations through `retort migrate`: it knows the database.")

engine = create_engine(driver_url(url))
with engine.connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(hashtext('retort migrate'))"))
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
