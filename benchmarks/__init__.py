"""What `retort bench NAME` runs, one module a name. Each prints a table and, with --json FILE, writes its rows there."""
