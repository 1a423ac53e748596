"""The links: bytes pass, a closed gate holds them and a connection's end, the other way stays."""

from __future__ import annotations

import asyncio
import unittest

from links import HOST, Mesh

HELD_S = 0.1


class MeshTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self.accepted = asyncio.Queue()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.accepted.put((reader, writer))

        self.server = await asyncio.start_server(accept, HOST, 0)
        port = self.server.sockets[0].getsockname()[1]
        self.mesh = Mesh(("us", "eu"), lambda region: port)
        await self.mesh.open()
        dial = await asyncio.open_connection(HOST, self.mesh.links["us", "eu"].port)
        self.us_reader, self.us_writer = dial
        self.eu_reader, self.eu_writer = await self.accepted.get()

    async def asyncTearDown(self) -> None:
        await self.mesh.close()
        self.us_writer.transport.abort()
        self.eu_writer.transport.abort()
        self.server.close()

    async def held(self, reader: asyncio.StreamReader) -> None:
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(reader.read(1), HELD_S)

    async def test_one_direction_is_cut_and_the_other_stays(self) -> None:
        self.mesh.cut("us", "eu")
        self.us_writer.write(b"a")
        self.eu_writer.write(b"b")
        self.assertEqual(await self.us_reader.read(1), b"b")
        await self.held(self.eu_reader)
        self.mesh.heal()
        self.assertEqual(await self.eu_reader.read(1), b"a")

    async def test_a_cut_concerns_what_the_other_side_dialled_too(self) -> None:
        self.mesh.cut("eu", "us")
        self.eu_writer.write(b"b")
        await self.held(self.us_reader)

    async def test_a_cut_hides_the_end_of_a_connection(self) -> None:
        self.mesh.cut("us", "eu")
        self.us_writer.close()
        await self.held(self.eu_reader)
        self.mesh.heal()
        self.assertEqual(await self.eu_reader.read(1), b"")


if __name__ == "__main__":
    unittest.main()
