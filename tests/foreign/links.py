"""The links between the nodes: one TCP proxy for each node and peer that it dials.

A link forwards bytes and knows nothing of what they mean. Each direction has a gate. A closed gate
holds bytes, and also the end of a connection, as a network does that loses every packet: neither
side learns of it until the gate opens or its own patience ends.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

CHUNK_BYTES = 1 << 16
HOST = "127.0.0.1"


class Link:
    """The proxy that one node dials to reach one peer."""

    def __init__(self, target: Callable[[], int | None]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.forward = asyncio.Event()
        self.backward = asyncio.Event()
        self.forward.set()
        self.backward.set()

    async def open(self) -> None:
        """Binds a port of the system's choice."""
        self._server = await asyncio.start_server(self._accepted, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends the proxy and every connection through it."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accepted(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._carry(near, back)
        except asyncio.CancelledError:
            # Only close() cancels, and it waits for this end; the server would log it.
            back.transport.abort()
        finally:
            self._connections.discard(task)

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        # A handshake needs both directions.
        await self.forward.wait()
        await self.backward.wait()
        port = self._target()
        if port is None:
            back.transport.abort()
            return
        try:
            far, onward = await asyncio.open_connection(HOST, port)
        except OSError:
            back.transport.abort()
            return
        pumps = [
            asyncio.create_task(_pump(near, onward, self.forward)),
            asyncio.create_task(_pump(far, back, self.backward)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            onward.transport.abort()
            back.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    """Forwards bytes through the gate until either side ends; an end passes the gate too."""
    while True:
        try:
            data = await reader.read(CHUNK_BYTES)
        except OSError:
            data = b""
        await gate.wait()
        if not data:
            writer.close()
            return
        try:
            writer.write(data)
            await writer.drain()
        except OSError:
            return


class Mesh:
    """All links between the regions, with cuts by direction."""

    def __init__(self, regions: Iterable[str], target: Callable[[str], int | None]) -> None:
        self.links: dict[tuple[str, str], Link] = {
            (dialer, peer): Link(lambda peer=peer: target(peer))  # type: ignore[misc]
            for dialer, peer in itertools.permutations(regions, 2)
        }

    async def open(self) -> None:
        """Binds every link."""
        for link in self.links.values():
            await link.open()

    async def close(self) -> None:
        """Ends every link."""
        for link in self.links.values():
            await link.close()

    def cut(self, source: str, destination: str) -> None:
        """Lets nothing pass from one region to another, whoever dialled; the way back stays."""
        self.links[source, destination].forward.clear()
        self.links[destination, source].backward.clear()

    def heal(self) -> None:
        """Opens every gate."""
        for link in self.links.values():
            link.forward.set()
            link.backward.set()
