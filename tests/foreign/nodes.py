"""The nodes: processes of the product, known by their command line and their one line of output.

A node is started, killed by SIGKILL and started again. The kernel kills it too when this process
ends, however that happens. What is said to a node stands in `client`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

READY = re.compile(rb"likewise ready region=(\S+) client=(\S+) peers=(\S+) epoch=([0-9a-f]+)\s*")
READY_WAIT_S = 60.0
HOST = "127.0.0.1"


class NodeFailed(Exception):
    """A node did not start, or ended by itself."""


class Node:
    """One region's node."""

    def __init__(self, region: str, binary: Path, folder: Path, peers: Mapping[str, int]) -> None:
        self.region = region
        self.epoch = ""
        self.client_port: int | None = None
        self.peer_port: int | None = None
        self._binary = binary
        self._data = folder / region
        self._log = folder / f"{region}.log"
        self._peers = peers
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the process and waits until it says where it listens."""
        arguments = [
            "serve", "--region", self.region, "--data-dir", str(self._data),
            "--client-listen", f"{HOST}:0", "--peer-listen", f"{HOST}:0",
        ]
        for peer, port in self._peers.items():
            arguments += ["--peer", f"{peer}={HOST}:{port}"]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig", "KILL", "--", str(self._binary), *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )
        try:
            await asyncio.wait_for(self._read_ready(), READY_WAIT_S)
        except TimeoutError as error:
            raise NodeFailed(
                f"{self.region} did not say that it is ready; see {self._log}"
            ) from error
        self._drain = asyncio.create_task(self._read_rest())

    def kill(self) -> None:
        """Sends SIGKILL; `ended` waits for the end."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self.client_port = None
        self.peer_port = None

    async def ended(self) -> None:
        """Waits until the process is gone."""
        if self._process is not None:
            await self._process.wait()
        if self._drain is not None:
            await self._drain
            self._drain = None

    def check_running(self) -> None:
        """Raises when the process ended although nobody killed it."""
        process = self._process
        if self.client_port is not None and process is not None and process.returncode is not None:
            raise NodeFailed(
                f"{self.region} ended by itself with {process.returncode}; see {self._log}"
            )

    def wipe(self) -> None:
        """Deletes the data folder of a node that is down."""
        shutil.rmtree(self._data)

    async def _read_ready(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        match = READY.fullmatch(line)
        if match is None or match[1].decode() != self.region:
            raise NodeFailed(f"{self.region} began with {line!r}; see {self._log}")
        self.client_port = int(match[2].rpartition(b":")[2])
        self.peer_port = int(match[3].rpartition(b":")[2])
        self.epoch = match[4].decode()

    async def _read_rest(self) -> None:
        """Keeps the pipe empty, so that the node can never block on it."""
        assert self._process is not None and self._process.stdout is not None
        while await self._process.stdout.read(1 << 16):
            pass
