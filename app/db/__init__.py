"""PostgreSQL: the engine, the one way to open a transaction, and the base of every model."""
