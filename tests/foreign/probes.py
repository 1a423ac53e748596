"""Clients that carry their token from region to region and must never miss their own writes.

Each writes to a post that nobody else writes to, at one node, and reads it with AT_LEAST at
another: the answer must show exactly what the client did. A node that cannot cover the token yet
refuses, which is no fault.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from calls import send
from client import OutcomeUnknown, Refused, call
from cluster import Cluster
from load import Load
from record import Carrier, Item, Kind, Record

PROBES = 4
USERS = 50
READ_WAIT_S = 1
PAUSE_S = 0.02


@dataclass
class _Own:
    """What one probe has done to its post."""

    post: str
    likers: set[str] = field(default_factory=set)
    views: int = 0


class Probes:
    """A few such clients, which can be paused."""

    def __init__(self, cluster: Cluster, load: Load, record: Record, seed: int) -> None:
        self.reads = 0
        self._cluster = cluster
        self._load = load
        self._record = record
        self._random = random.Random(seed)
        self._running = asyncio.Event()
        self._busy = 0
        self._posts = 0
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Starts them."""
        self._running.set()
        self._tasks = [asyncio.create_task(self._probe()) for _ in range(PROBES)]

    async def pause(self) -> None:
        """Returns when none of them has a call under way."""
        self._running.clear()
        while self._busy:
            await asyncio.sleep(PAUSE_S)

    def resume(self) -> None:
        """Lets them go on."""
        self._running.set()

    async def close(self) -> None:
        """Ends them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what ended one of them."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _probe(self) -> None:
        own, token = self._fresh(), ""
        while True:
            await self._running.wait()
            self._busy += 1
            try:
                written = await self._write(own, token)
                if written is None:
                    own = self._fresh()
                else:
                    token = await self._read(own, written)
            finally:
                self._busy -= 1
            await asyncio.sleep(PAUSE_S)

    def _fresh(self) -> _Own:
        self._posts += 1
        return _Own(f"probe-{self._posts}")

    async def _write(self, own: _Own, token: str) -> str | None:
        """Writes something with the token of before; the new token. None where the outcome is
        unknown, so that the post is of no more use."""
        region = self._random.choice(self._cluster.regions)
        client = self._cluster.members[region].client
        if client is None:
            return token
        item = self._item(own)
        attempt = self._load.attempt(region, Carrier.UNARY, (item,), token)
        response = await send(self._cluster.stubs, client, self._record, attempt)
        if response is None:
            return None if attempt.request_id in self._record.unknown else token
        if item.kind is Kind.LIKE:
            own.likers.add(item.user)
        elif item.kind is Kind.UNLIKE:
            own.likers.discard(item.user)
        else:
            own.views += item.delta
        return str(response.token)

    def _item(self, own: _Own) -> Item:
        draw = self._random.random()
        if draw < 0.2:
            return Item(Kind.ADD, own.post, counter="views", delta=self._random.randint(1, 9))
        if draw < 0.45 and own.likers:
            return Item(Kind.UNLIKE, own.post, self._random.choice(sorted(own.likers)))
        return Item(Kind.LIKE, own.post, f"probe-user-{self._random.randrange(USERS)}")

    async def _read(self, own: _Own, token: str) -> str:
        """Reads somewhere what was written; the token to go on with."""
        region = self._random.choice(self._cluster.regions)
        client = self._cluster.members[region].client
        if client is None or not token:
            return token
        viewer = f"probe-user-{self._random.randrange(USERS)}"
        stubs = self._cluster.stubs
        options = stubs.types.ReadOptions(
            consistency=stubs.types.CONSISTENCY_AT_LEAST, token=token, wait={"seconds": READ_WAIT_S}
        )
        try:
            seen = await call(client.likes.GetPost, stubs.like.GetPostRequest(
                post=own.post, viewer=viewer, options=options,
            ))
            options.token = seen.token
            counted = await call(client.counters.GetCounters, stubs.counter.GetCountersRequest(
                post=own.post, counters=["views"], options=options,
            ))
        except (Refused, OutcomeUnknown):
            return token
        self._judge(region, own, viewer, seen.likes, counted.counters)
        self.reads += 1
        return str(counted.token)

    def _judge(self, region: str, own: _Own, viewer: str, likes: Any, counters: Any) -> None:
        views = sum(counter.value for counter in counters)
        seen = likes.count, likes.viewer_likes, views
        expected = len(own.likers), viewer in own.likers, own.views
        if seen != expected:
            self._record.problems.append(
                f"{region} covers a token for {own.post} and answers {seen}, not {expected}"
            )
