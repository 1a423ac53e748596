"""The load: for each region a crowd of unary callers and a stream of batches, up to a quota.

A quota is given out piece by piece and given back where a call was refused or its outcome is
unknown, so that it is spent when that much was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from calls import batch_answers, batch_message, send, unary_answer, unary_message
from client import Client, OutcomeUnknown, Refused, call, short_reason
from cluster import Cluster, Member
from record import Attempt, Carrier, Item, Kind, Record
from workload import Workload

CALLERS = 12
BATCH_ITEMS = 200
BATCHES_IN_FLIGHT = 4
PAUSE_AFTER_REFUSAL_S = 0.05
SECOND_SEND_SHARE = 0.05
"""Of the unary calls: sent again under the same request id after their answer."""


@dataclass
class Quota:
    """How much one region's crowd has still to write."""

    unary: int = 0
    streamed: int = 0
    held: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, unary: int, streamed: int) -> None:
        """Adds work."""
        self.unary += unary
        self.streamed += streamed
        self.changed.set()

    @property
    def spent(self) -> bool:
        """Whether all of it is acknowledged."""
        return self.unary + self.streamed + self.held == 0

    @property
    def left(self) -> int:
        """What is not acknowledged yet."""
        return self.unary + self.streamed + self.held


class Load:
    """The crowds of all regions."""

    def __init__(self, cluster: Cluster, workload: Workload, record: Record, run: str) -> None:
        self.quotas = {region: Quota() for region in cluster.regions}
        self._cluster = cluster
        self._stubs = cluster.stubs
        self._workload = workload
        self._record = record
        self._run = run
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Brings the crowds up; they write as soon as they have a quota."""
        for region in self._cluster.regions:
            self._tasks += [asyncio.create_task(self._caller(region)) for _ in range(CALLERS)]
            self._tasks.append(asyncio.create_task(self._streamer(region)))

    async def close(self) -> None:
        """Ends the crowds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what ended a crowd."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def attempt(
        self, region: str, carrier: Carrier, items: tuple[Item, ...], token: str = ""
    ) -> Attempt:
        """A new request to a region's node."""
        request_id = f"{self._run}-{next(self._numbers)}"
        if carrier is Carrier.UNARY:
            message = unary_message(self._stubs, items[0], request_id, token)
        else:
            message = batch_message(self._stubs, items, request_id)
        epoch = self._cluster.members[region].node.epoch
        return Attempt(request_id, region, epoch, carrier, items, message)

    async def _caller(self, region: str) -> None:
        member, quota = self._cluster.members[region], self.quotas[region]
        while True:
            client = await _ready(member)
            if quota.unary == 0:
                quota.changed.clear()
                await quota.changed.wait()
                continue
            quota.unary -= 1
            quota.held += 1
            done = await self._call_once(region, member, client)
            quota.held -= 1
            if not done:
                quota.give(1, 0)
                await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)

    async def _call_once(self, region: str, member: Member, client: Client) -> bool:
        attempt = self.attempt(region, Carrier.UNARY, (self._workload.item(),))
        member.unary_in_flight += 1
        try:
            response = await send(self._stubs, client, self._record, attempt)
            if response is not None and self._workload.chance(SECOND_SEND_SHARE):
                await self._send_again(client, attempt, response)
        finally:
            member.unary_in_flight -= 1
        return response is not None

    async def _send_again(self, client: Client, attempt: Attempt, response: Any) -> None:
        """A retry of an answered call must do nothing: an add would show in the counter in the
        end, and a like or unlike must be answered with the same ids."""
        item = attempt.items[0]
        method = {
            Kind.LIKE: client.likes.Like, Kind.UNLIKE: client.likes.Unlike,
            Kind.ADD: client.counters.Add,
        }[item.kind]
        try:
            again = await call(method, attempt.message)
        except (Refused, OutcomeUnknown):
            return
        if unary_answer(item, again) != unary_answer(item, response):
            self._record.problems.append(f"{attempt.region} answered otherwise to a retried {item}")

    async def _streamer(self, region: str) -> None:
        member, quota = self._cluster.members[region], self.quotas[region]
        while True:
            client = await _ready(member)
            stream = _Stream(self, region, member, quota, client.likes.StreamWrites())
            await stream.run()
            await asyncio.sleep(PAUSE_AFTER_REFUSAL_S)

    def next_batch(self, region: str, size: int) -> Attempt:
        """A batch of new items."""
        items = tuple(self._workload.item() for _ in range(size))
        return self.attempt(region, Carrier.STREAM, items)

    def answered(self, attempt: Attempt, response: Any) -> bool:
        """Records what became of a batch of a stream; whether it was taken."""
        if response.WhichOneof("outcome") == "result":
            answers = batch_answers(self._stubs, self._record, attempt, response.result)
            self._record.acknowledge(attempt, answers)
            return True
        reason = short_reason(self._stubs.types.Reason.Name(response.error.reason))
        if reason in ("UNSPECIFIED", "OUTCOME_UNKNOWN"):
            self._record.lose(attempt)
        else:
            self._record.figures.refused[reason] += len(attempt.items)
        return False

    def lost(self, attempt: Attempt) -> None:
        """Records that nobody knows what became of a batch."""
        self._record.lose(attempt)

    def stray(self, region: str, batch_id: int) -> None:
        """Records an answer to a batch that does not wait for one."""
        self._record.problems.append(f"{region} answered batch {batch_id}, which does not wait")

    def new_request(self, batch_id: int, attempt: Attempt) -> Any:
        """A batch as a message of a stream."""
        return self._stubs.like.StreamWritesRequest(batch_id=batch_id, batch=attempt.message)


class _Stream:
    """One stream of batches, until it breaks. What it has not seen answered is then unknown."""

    def __init__(
        self, load: Load, region: str, member: Member, quota: Quota, stream: Any
    ) -> None:
        self._load = load
        self._region = region
        self._member = member
        self._quota = quota
        self._call = stream
        self._waiting: dict[int, Attempt] = {}
        self._window = asyncio.Semaphore(BATCHES_IN_FLIGHT)

    async def run(self) -> None:
        """Writes batches and reads answers until the stream ends."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            self._call.cancel()
            results = await asyncio.gather(reader, writer, return_exceptions=True)
            self._give_up()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _write(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for batch_id in itertools.count(1):
                await self._window.acquire()
                while self._quota.streamed == 0:
                    self._quota.changed.clear()
                    await self._quota.changed.wait()
                attempt = self._load.next_batch(
                    self._region, min(BATCH_ITEMS, self._quota.streamed)
                )
                self._quota.streamed -= len(attempt.items)
                self._quota.held += len(attempt.items)
                self._member.batches_in_flight += 1
                self._waiting[batch_id] = attempt
                await self._call.write(self._load.new_request(batch_id, attempt))

    async def _read(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in self._call:
                attempt = self._waiting.pop(response.batch_id, None)
                if attempt is None:
                    self._load.stray(self._region, response.batch_id)
                    continue
                self._end(attempt, self._load.answered(attempt, response))
                self._window.release()

    def _end(self, attempt: Attempt, acknowledged: bool) -> None:
        self._member.batches_in_flight -= 1
        self._quota.held -= len(attempt.items)
        if not acknowledged:
            self._quota.give(0, len(attempt.items))

    def _give_up(self) -> None:
        for attempt in self._waiting.values():
            self._load.lost(attempt)
            self._end(attempt, acknowledged=False)
        self._waiting.clear()


async def _ready(member: Member) -> Client:
    while member.client is None:
        await member.up.wait()
        await asyncio.sleep(0)
    return member.client
