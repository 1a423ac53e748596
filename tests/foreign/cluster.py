"""The three nodes with their links and connections: what the scenario acts on.

Says when all nodes agree, and watches that no node's frontier ever goes backwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import Client, OutcomeUnknown, Refused, call
from links import Mesh
from nodes import Node
from stubs import Stubs

POLL_S = 0.2
WATCH_S = 0.5
STATUS_WAIT_S = 5.0

ReplicaKey = tuple[str, str]
"""Region and epoch."""


class NotSettled(Exception):
    """The nodes did not come to agree in time."""


@dataclass
class Member:
    """One region: its node, the connection to it while it is up, and how far it was seen to be."""

    node: Node
    client: Client | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    seen: dict[ReplicaKey, int] = field(default_factory=dict)
    unary_in_flight: int = 0
    batches_in_flight: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that were sent and not answered."""
        return self.unary_in_flight + self.batches_in_flight


class Cluster:
    """Three nodes."""

    def __init__(self, stubs: Stubs, binary: Path, folder: Path, regions: Iterable[str]) -> None:
        self.stubs = stubs
        self.problems: list[str] = []
        self._binary = binary
        self._folder = folder
        self.members: dict[str, Member] = {}
        self.regions = tuple(regions)
        self.mesh = Mesh(self.regions, lambda region: self.members[region].node.peer_port)
        self._watch: asyncio.Task[None] | None = None
        self._retired: list[Client] = []

    async def open(self) -> None:
        """Binds the links, then starts all nodes at once: each needs its peers' proxies only."""
        await self.mesh.open()
        for region in self.regions:
            peers = {
                peer: link.port
                for (dialer, peer), link in self.mesh.links.items() if dialer == region
            }
            self.members[region] = Member(Node(region, self._binary, self._folder, peers))
        await asyncio.gather(*(self.start(region) for region in self.regions))
        self._watch = asyncio.create_task(self._watch_frontiers())

    async def close(self) -> None:
        """Ends everything that was started."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        for region in self.members:
            await self.kill(region)
        for client in self._retired:
            await client.close()
        await self.mesh.close()

    async def start(self, region: str) -> Client:
        """Starts a node and connects to it."""
        member = self.members[region]
        await member.node.start()
        assert member.node.client_port is not None
        member.client = Client(self.stubs, member.node.client_port)
        member.up.set()
        return member.client

    async def kill(self, region: str) -> None:
        """Kills a node by SIGKILL and waits for its end."""
        member = self.members[region]
        member.node.kill()
        member.up.clear()
        # Closed at the very end: closing cancels calls under way, and these have to fail instead.
        if member.client is not None:
            self._retired.append(member.client)
            member.client = None
        await member.node.ended()

    async def status(self, region: str) -> Any:
        """A node's status; raises `Refused` or `OutcomeUnknown`."""
        client = self.members[region].client
        if client is None:
            raise OutcomeUnknown(f"{region} is down")
        request = self.stubs.cluster.GetStatusRequest()
        return await call(client.cluster.GetStatus, request, STATUS_WAIT_S)

    async def settled(self, wait_s: float) -> str:
        """Waits until all nodes are ready and settled and agree on frontier and fingerprint; the
        fingerprint."""
        deadline = time.monotonic() + wait_s
        summary = "no node answered"
        while time.monotonic() < deadline:
            self.check_running()
            try:
                statuses = [await self.status(region) for region in self.regions]
            except (Refused, OutcomeUnknown) as error:
                summary = str(error)
            else:
                if self._agree(statuses):
                    return str(statuses[0].fingerprint)
                summary = "; ".join(map(self._describe, statuses))
            await asyncio.sleep(POLL_S)
        raise NotSettled(f"the nodes do not agree after {wait_s:.0f} s: {summary}")

    def check_running(self) -> None:
        """Raises when a node ended by itself."""
        for member in self.members.values():
            member.node.check_running()

    def _agree(self, statuses: list[Any]) -> bool:
        ready = self.stubs.cluster.NODE_STATE_READY
        return (
            all(status.state == ready and status.settled for status in statuses)
            and len({frozenset(_heads(status).items()) for status in statuses}) == 1
            and len({(status.fingerprint, status.replicas) for status in statuses}) == 1
        )

    def _describe(self, status: Any) -> str:
        heads = " ".join(
            f"{region}/{epoch[:8]}:{seq}" for (region, epoch), seq in sorted(_heads(status).items())
        )
        state = self.stubs.cluster.NodeState.Name(status.state).removeprefix("NODE_STATE_")
        settled = "settled" if status.settled else "unsettled"
        return f"{status.region} {state} {settled} {status.fingerprint[:12]} {heads}"

    async def _watch_frontiers(self) -> None:
        while True:
            for region, member in self.members.items():
                with contextlib.suppress(Refused, OutcomeUnknown):
                    self._note_frontier(region, member, await self.status(region))
            await asyncio.sleep(WATCH_S)

    def _note_frontier(self, region: str, member: Member, status: Any) -> None:
        for replica, seq in _heads(status).items():
            if seq < member.seen.get(replica, 0):
                self.problems.append(
                    f"{region} went back from {member.seen[replica]} to {seq} of {replica}"
                )
            member.seen[replica] = seq


def _heads(status: Any) -> dict[ReplicaKey, int]:
    return {(head.region, head.epoch): head.seq for head in status.heads if head.seq > 0}
