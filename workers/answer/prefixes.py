"""Reading with the engine, and the states after persona prefixes: read once, then shared by every conversation that begins so."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from retnet_core import Engine, Request, Result, State

# 5 MB each in fp32.
KEPT = 16


async def run(engine: Engine, request: Request) -> Result:
    """The result of a request that writes nothing; cancelled together with the waiting task. Raises Overloaded."""
    handle = engine.submit(request)
    try:
        return await handle.result()
    finally:
        handle.cancel()  # has no effect once it is done


async def read(engine: Engine, request: Request) -> State:
    """The state after the request's ids. Raises Overloaded."""
    state = (await run(engine, request)).state
    assert state is not None  # asked for, and not cancelled
    return state


class Prefixes:
    """`await get(ids)` gives the state that has read exactly `ids`, from the cache when it is there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._states: OrderedDict[tuple[int, ...], State] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, ids: list[int]) -> State:
        """Raises Overloaded."""
        key = tuple(ids)
        async with self._lock:
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = await read(self._engine, Request(ids))
                while len(self._states) > KEPT:
                    self._states.popitem(last=False)
            self._states.move_to_end(key)
        return state
