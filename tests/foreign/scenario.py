"""The story of a run: crowds, cuts, kills, a wiped disk, and heals; then rest.

A scenario acts on the cluster and notes what really happened, for a run that misses one of its
demands is void. It judges nothing but what only the moment shows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from calls import retry, send
from client import OutcomeUnknown, Refused, call
from cluster import Cluster
from load import Load
from probes import Probes
from record import Attempt, Carrier, CutLedger, Item, Kind, Record
from workload import Phase, Workload

POLL_S = 0.01
DOWN_S = 1.0
"""How long a killed node stays down while the others write."""
RETRY_SHARE = 0.6
"""Of the requests of unknown outcome: sent again, once, when their node is back. The others stay
open, for what they touched may be either in the end."""
RETRIES_IN_FLIGHT = 16
SPLIT_BATCH = 50


@dataclass(frozen=True)
class Scale:
    """How much is written, for each region and stage, and how long things may take."""

    unary: int
    streamed: int
    split_users: int
    stage_wait_s: float
    settle_wait_s: float


@dataclass(frozen=True)
class Cut:
    """Directions in which nothing passes, and the two sides that are told apart by it."""

    name: str
    blocked: tuple[tuple[str, str], ...]
    near: tuple[str, ...]
    far: tuple[str, ...]


@dataclass
class Deeds:
    """What really happened."""

    cuts: int = 0
    cut_writes_min: int | None = None
    both_sides: int = 0
    kills: int = 0
    catch_ups: int = 0
    story: list[str] = field(default_factory=list)


class TooSlow(Exception):
    """A stage did not get its writes through in time."""


def isolation(region: str, regions: Sequence[str]) -> Cut:
    """One region cut off from all others."""
    others = tuple(other for other in regions if other != region)
    blocked = tuple(
        pair for other in others for pair in ((region, other), (other, region))
    )
    return Cut(f"{region} alone", blocked, (region,), others)


def one_way(source: str, destination: str) -> Cut:
    """Nothing passes from one region to another; the way back is open."""
    return Cut(f"{source} unheard by {destination}", ((source, destination),), (source,),
               (destination,))


def bridge(near: str, far: str) -> Cut:
    """Two regions that hear each other only through the third."""
    return Cut(f"bridge between {near} and {far}", ((near, far), (far, near)), (near,), (far,))


class Scenario:
    """One run."""

    def __init__(
        self, cluster: Cluster, workload: Workload, load: Load, probes: Probes, record: Record,
        scale: Scale, seed: int,
    ) -> None:
        self.deeds = Deeds()
        self._cluster = cluster
        self._workload = workload
        self._load = load
        self._probes = probes
        self._record = record
        self._scale = scale
        self._random = random.Random(seed)
        self._begun = time.monotonic()
        self._beyond_retry: set[str] = set()

    async def short(self) -> None:
        """One cut, and one kill during it."""
        regions = self._cluster.regions
        await self.stage(Phase.NORMAL)
        await self.cut(isolation(regions[1], regions), Phase.VIRAL, kill=regions[2])
        await self.stage(Phase.TSUNAMI)

    async def full(self) -> None:
        """Five cuts, five kills, a wiped disk."""
        us, eu, ap = regions = self._cluster.regions
        await self.stage(Phase.NORMAL, kill=us)
        await self.cut(isolation(eu, regions), Phase.VIRAL, kill=ap)
        await self.stage(Phase.TSUNAMI)
        await self.cut(one_way(us, ap), Phase.VIRAL, kill=eu)
        await self.cut(bridge(eu, ap), Phase.TSUNAMI, kill=us)
        await self.cut(isolation(us, regions), Phase.NORMAL, kill=us)
        await self.wiped_disk(eu)
        await self.cut(isolation(ap, regions), Phase.VIRAL)
        await self.stage(Phase.TSUNAMI)

    async def stage(
        self, phase: Phase, kill: str | None = None, without: str | None = None
    ) -> None:
        """A stretch of load on all regions but one, with a kill in the middle of it."""
        self.tell(f"{phase.name.lower()} load" + (f" without {without}" if without else ""))
        self._workload.enter(phase)
        for region, quota in self._load.quotas.items():
            if region != without:
                quota.give(self._scale.unary, self._scale.streamed)
        if kill is not None:
            await self._kill_with_writes_in_flight(kill)
        await self._until(lambda: all(quota.spent for quota in self._load.quotas.values()))

    async def cut(self, cut: Cut, phase: Phase, kill: str | None = None) -> None:
        """A cut with load on both sides and users who like on both; then the heal."""
        self.tell(f"cut: {cut.name}")
        for source, destination in cut.blocked:
            self._cluster.mesh.cut(source, destination)
        ledger = self._record.cut = CutLedger()
        await self._like_on_both_sides(cut)
        await self.stage(phase, kill=kill)
        self._record.cut = None
        sides = [sum(ledger.writes[region] for region in side) for side in (cut.near, cut.far)]
        both = ledger.both_sides(cut.near, cut.far)
        self.deeds.cuts += 1
        self.deeds.both_sides += both
        self.deeds.cut_writes_min = min(*sides, *filter(None, [self.deeds.cut_writes_min]))
        self._cluster.mesh.heal()
        self.tell(f"healed: {sides[0]} and {sides[1]} writes on the sides, {both} pairs on both")

    async def wiped_disk(self, region: str) -> None:
        """A node loses its disk and comes back whole from its peers. Before, all is replicated:
        what only the lost disk held could not come back."""
        await self.settle()
        self.tell(f"{region} is killed and loses its disk")
        self._beyond_retry |= self._unknown_of(region).keys()
        await self._cluster.kill(region)
        member = self._cluster.members[region]
        member.node.wipe()
        member.seen.clear()
        await self.stage(Phase.NORMAL, without=region)
        for other in self._cluster.regions:
            if other != region:
                self._cluster.mesh.cut(region, other)
                self._cluster.mesh.cut(other, region)
        await self._cluster.start(region)
        await self._demand_rebuilding(region)
        self._cluster.mesh.heal()
        fingerprint = await self._cluster.settled(self._scale.settle_wait_s)
        self.deeds.catch_ups += 1
        self.tell(f"{region} is whole again: {fingerprint}")
        self._probes.resume()

    async def settle(self) -> str:
        """Rest: nobody writes, and all nodes come to agree. The fingerprint."""
        await self._probes.pause()
        for region in self._cluster.regions:
            await self._retry_some(region)
        fingerprint = await self._cluster.settled(self._scale.settle_wait_s)
        self.tell(f"settled: {fingerprint}")
        return fingerprint

    async def restart_all(self) -> str:
        """Kills all nodes by SIGKILL and starts them again. The fingerprint, once they agree."""
        self.tell("all nodes are killed and started again")
        await asyncio.gather(*map(self._cluster.kill, self._cluster.regions))
        await asyncio.gather(*map(self._cluster.start, self._cluster.regions))
        return await self._cluster.settled(self._scale.settle_wait_s)

    def tell(self, line: str) -> None:
        """Prints a line of the story."""
        print(f"{time.monotonic() - self._begun:7.1f} s  {line}", flush=True)

    async def _kill_with_writes_in_flight(self, region: str) -> None:
        member, quota = self._cluster.members[region], self._load.quotas[region]
        half = quota.left // 2
        await self._until(
            lambda: quota.spent
            or (quota.left <= half and member.unary_in_flight > 0 and member.batches_in_flight > 0)
        )
        in_flight, unknown = member.in_flight, self._record.figures.unknown
        await self._cluster.kill(region)
        self.deeds.kills += in_flight > 0
        await asyncio.sleep(DOWN_S)
        await self._cluster.start(region)
        unknown = self._record.figures.unknown - unknown
        self.tell(
            f"{region} was killed with {in_flight} requests in flight and is back; "
            f"{unknown} operations of unknown outcome"
        )
        await self._retry_some(region)

    async def _retry_some(self, region: str) -> None:
        client = self._cluster.members[region].client
        if client is None:
            return
        waiting = [
            attempt for request_id, attempt in self._unknown_of(region).items()
            if request_id not in self._beyond_retry
        ]
        drawn = [attempt for attempt in waiting if self._random.random() < RETRY_SHARE]
        self._beyond_retry.update(attempt.request_id for attempt in waiting)
        chosen = iter(drawn)

        async def work() -> None:
            for attempt in chosen:
                await retry(self._cluster.stubs, client, self._record, attempt)

        await asyncio.gather(*(work() for _ in range(RETRIES_IN_FLIGHT)))

    def _unknown_of(self, region: str) -> dict[str, Attempt]:
        return {
            request_id: attempt for request_id, attempt in self._record.unknown.items()
            if attempt.region == region
        }

    async def _like_on_both_sides(self, cut: Cut) -> None:
        """Users like one post on both sides; a third of them unlike on the near side, and a third
        on both."""
        post = f"split-{self.deeds.cuts}"
        users = [f"both-{number}" for number in range(self._scale.split_users)]
        third = len(users) // 3
        near, far = cut.near[0], cut.far[0]
        await asyncio.gather(
            self._write_users(near, Kind.LIKE, post, users),
            self._write_users(far, Kind.LIKE, post, users),
        )
        await asyncio.gather(
            self._write_users(near, Kind.UNLIKE, post, users[:2 * third]),
            self._write_users(far, Kind.UNLIKE, post, users[third:2 * third]),
        )

    async def _write_users(self, region: str, kind: Kind, post: str, users: list[str]) -> None:
        client = self._cluster.members[region].client
        assert client is not None, "no node is down when a cut begins"
        for start in range(0, len(users), SPLIT_BATCH):
            items = tuple(Item(kind, post, user) for user in users[start:start + SPLIT_BATCH])
            attempt = self._load.attempt(region, Carrier.BATCH, items)
            await send(self._cluster.stubs, client, self._record, attempt)

    async def _demand_rebuilding(self, region: str) -> None:
        """An empty node without peers takes writes, without a count, and refuses reads."""
        client = self._cluster.members[region].client
        assert client is not None
        stubs = self._cluster.stubs
        try:
            await call(client.likes.GetPost, stubs.like.GetPostRequest(post="post-0"))
            self._record.problems.append(f"{region} answered a read before it had any state")
        except Refused as refusal:
            if refusal.reason != "REBUILDING":
                self._record.problems.append(f"{region} refused a read, but with {refusal}")
        except OutcomeUnknown as error:
            self._record.problems.append(f"{region} refused a read without a reason: {error}")
        like = Item(Kind.LIKE, "post-0", "while-rebuilding")
        attempt = self._load.attempt(region, Carrier.UNARY, (like,))
        response = await send(stubs, client, self._record, attempt)
        if response is None:
            self._record.problems.append(f"{region} refused a write while it had no state")
        elif response.HasField("count"):
            self._record.problems.append(f"{region} told a count before it had any state")

    async def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._scale.stage_wait_s
        while not done():
            self._load.check()
            self._probes.check()
            self._cluster.check_running()
            if time.monotonic() > deadline:
                left = {region: quota.left for region, quota in self._load.quotas.items()}
                raise TooSlow(f"not written after {self._scale.stage_wait_s:.0f} s: {left}")
            await asyncio.sleep(POLL_S)
