"""Likewise nodes, the wires between them, and the load generator."""

import json
import os
import signal
import subprocess

import machine
from processes import Failed, figures


class Tools:
    """The built binaries, and how they are run."""

    def __init__(self, processes, node, load):
        self.processes = processes
        self.node = node
        self._load = load

    def load_arguments(self, what, cpu=None, **options):
        """The command line of one measurement of the load generator."""
        pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
        flags = []
        for name, value in options.items():
            if value is not None:
                flags += [f"--{name.replace('_', '-')}", str(value)]
        return [*pinned, self._load, what, *flags]

    def load(self, what, **options):
        """Runs one measurement and returns its figures."""
        return figures(self.processes.result(self.load_arguments(what, **options)))

    def begin(self, what, **options):
        """Begins a measurement; `end` returns its figures."""
        arguments = self.load_arguments(what, **options)
        return self.processes.start(arguments, errors=subprocess.PIPE)

    def end(self, process):
        return figures(self.processes.finish(process))


class Node:
    """A node in a process of its own. The configuration is the default, unless settings say otherwise."""

    def __init__(self, tools, folder, region="one", peers=(), cpu=None, settings=None):
        self._tools = tools
        self.folder = folder
        self.region = region
        self._peers = list(peers)
        self._cpu = cpu
        # Only the wires that a measurement lays are to be used, so no gossip.
        self._settings = {"PEERS__MEMBERSHIP": "static", **(settings or {})}
        self.start()

    def start(self):
        """Starts it on whatever its folder holds, and waits until it serves."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LIKEWISE")
        }
        environment |= {f"LIKEWISE__{key}": str(value) for key, value in self._settings.items()}
        pinned = [] if self._cpu is None else ["taskset", "-c", str(self._cpu)]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(self.folder.with_suffix(".log"), "a") as log:
            self._process = self._tools.processes.start(
                [
                    *pinned,
                    self._tools.node,
                    "serve",
                    "--client-listen=127.0.0.1:0",
                    "--peer-listen=127.0.0.1:0",
                    f"--region={self.region}",
                    "--data-dir",
                    self.folder,
                    *(f"--peer={region}={address}" for region, address in self._peers),
                ],
                environment=environment,
                errors=log,
            )
        line = self._process.stdout.readline()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "client" not in words:
            raise Failed(f"a node does not serve; see {self.folder.with_suffix('.log')}")
        self.address = words["client"]
        self.peer_address = words["peers"]

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self._tools.processes.stop(self._process, signal.SIGKILL)

    def stop(self):
        self._tools.processes.stop(self._process, signal.SIGTERM)

    def status(self):
        asking = self._tools.processes.start(
            [self._tools.node, "status", "--node", f"http://{self.address}", "-o", "json"]
        )
        # Its exit code tells of the cluster's health, which is not asked here.
        output = self._tools.processes.finish(asking, 60, codes=(0, 2, 3))
        return json.loads(output)["nodes"][0]

    def events(self):
        """How many events the running node has made."""
        status = self.status()
        return sum(head["seq"] for head in status["heads"] if head["epoch"] == status["epoch"])

    def stream(self, **options):
        """Writes on one stream; the count afterwards must be right, where it is known."""
        return self.checked(self._tools.load("stream", address=self.address, pid=self.pid, **options))

    @staticmethod
    def checked(found):
        if found["distinct"] is not None and found["count"] != found["distinct"]:
            raise Failed(f"the count is {found['count']} in place of {found['distinct']}")
        return found

    def cpu_seconds(self):
        return machine.cpu_seconds(self.pid)

    def memory_bytes(self):
        return machine.memory_bytes(self.pid)


class Wire:
    """A wire to a node's peers' port: `counted` tells its bytes, `switched` can be cut."""

    def __init__(self, tools, kind):
        self._process = tools.begin(kind)
        self.address = self._process.stdout.readline().split()[1]

    def _order(self, order):
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def lead_to(self, address):
        self._order(f"lead {address}")

    def crossed(self):
        """Bytes in both directions, with everything that HTTP/2 adds."""
        self._order("crossed")
        return int(self._process.stdout.readline())

    def switch(self, order):
        """Cuts or heals, and returns once that is done."""
        self._order(order)
        self._process.stdout.readline()


class Equality:
    """Waits until nodes are equal; the time counts from `go`."""

    def __init__(self, tools, nodes, likers):
        self._tools = tools
        self._process = tools.begin(
            "equal", nodes=",".join(node.address for node in nodes), likers=likers
        )
        self._process.stdout.readline()

    def go(self):
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def seconds(self):
        return self._tools.end(self._process)["seconds"]


def until_equal(tools, nodes, likers):
    equality = Equality(tools, nodes, likers)
    equality.go()
    return equality.seconds()
