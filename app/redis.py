"""The two Redis servers: the bus (doorbells, events, short requests, Celery) and the states.

Every key and channel is named here and nowhere else.
"""

from __future__ import annotations

from uuid import UUID

from redis.asyncio import BlockingConnectionPool, Redis

BELL = "bus:bell"  # a list: one element a ring; a generator that waits takes one
CONTROL = "bus:control"  # a pub/sub channel: {"cancel": message id}
REQUESTS = "bus:requests"  # a list of short requests that need the models: {"id", "kind", "deadline", …}

# A command may take this long; blocking reads use `blocking_client`.
SOCKET_TIMEOUT = 5.0
# Of one process to one server; a plain pool refuses the command that would need one more.
CONNECTIONS = 32


def conversation_stream(conversation_id: UUID) -> str:
    return f"bus:conversation:{conversation_id}"


def reply_list(request_id: str) -> str:
    return f"bus:reply:{request_id}"


def process_key(kind: str, name: str) -> str:
    """Where a process says that it lives: a JSON value that expires unless it is renewed."""
    return f"bus:process:{kind}:{name}"


def host_leases(host: str) -> str:
    """A sorted set: the requests that the crawler has open to a host, by the time at which each may be forgotten."""
    return f"bus:host:{host}:leases"


def host_pause(host: str) -> str:
    """The time (milliseconds) before which the crawler asks a host nothing: its crawl-delay, or its Retry-After."""
    return f"bus:host:{host}:pause"


def robots_text(origin: str) -> str:
    """What an origin's robots.txt said, for some minutes."""
    return f"bus:robots:{origin}"


def state_key(conversation_id: UUID, key: str) -> str:
    return f"state:{conversation_id}:{key}"


def client(url: str) -> Redis:
    """A client for commands that answer at once. Values are bytes. In a burst a command waits for one of few connections."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=SOCKET_TIMEOUT,
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=2.0,
        health_check_interval=15,
    )
    return Redis.from_pool(pool)


def blocking_client(url: str) -> Redis:
    """A client for BLPOP, XREAD BLOCK and pub/sub: its socket waits as long as the command does."""
    return Redis.from_url(url, socket_timeout=None, socket_connect_timeout=2.0, health_check_interval=15)
