"""What Likewise is compared with: Redis, a bare echo, and the generators that come with them."""

import re
import signal
import socket
import time

import machine
from processes import Failed, emptied, free_port

READY_SECONDS_MAX = 120
SCRIPT = (
    "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end "
    "redis.call('SADD', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])"
)


class Redis:
    """A server of its own, its file synced every second, as its own default is."""

    def __init__(self, tools, folder, *options, keep=False):
        self._tools = tools
        self.port = free_port()
        self.folder = folder if keep else emptied(folder)
        self._process = tools.processes.start(
            [
                "redis-server",
                "--bind", "127.0.0.1",
                "--port", self.port,
                "--dir", self.folder,
                "--daemonize", "no",
                "--save", "",
                *(options or ("--appendonly", "yes", "--appendfsync", "everysec")),
            ]  # fmt: skip
        )
        self._until_ready()

    def _until_ready(self):
        until = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise Failed("redis-server ended before it served")
            try:
                if self.ask("PING") == "+PONG":
                    return
            except ConnectionError:
                pass
            time.sleep(0.005)
        raise Failed(f"redis-server does not serve after {READY_SECONDS_MAX} s")

    @property
    def pid(self):
        return self._process.pid

    def ask(self, *words):
        """One command, on a connection of its own; a string's text, else the reply's line."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=600) as connection:
            connection.sendall(command.encode())
            replies = connection.makefile("rb")
            line = replies.readline().decode().rstrip()
            if line.startswith("$"):
                return replies.read(int(line[1:])).decode()
            return line

    def info(self, name):
        found = re.search(rf"^{name}:(\d+)", self.ask("INFO"), re.MULTILINE)
        return int(found[1])

    def load(self, kind, **options):
        return self._tools.load("redis", port=self.port, pid=self.pid, kind=kind, **options)

    def benchmark_script(self, seconds, pipeline):
        """The script by Redis's own generator, so that nobody need trust ours."""
        sha = self.ask("SCRIPT", "LOAD", SCRIPT)
        # It takes a number of requests, not a time.
        requests = int(150_000 * seconds)
        output = self._tools.processes.result(
            [
                "redis-benchmark", "-h", "127.0.0.1", "-p", self.port, "-c", 50, "-P", pipeline,
                "-r", 10_000_000, "-n", requests, "-q",
                "EVALSHA", sha, 2, "likes:bench", "count:bench", "u__rand_int__",
            ]  # fmt: skip
        )
        found = re.findall(r"([\d.]+) requests per second", output)
        if not found:
            raise Failed("redis-benchmark tells no rate")
        return float(found[-1])

    def memory_bytes(self):
        return machine.memory_bytes(self.pid)

    def stop(self, how=signal.SIGTERM):
        self._tools.processes.stop(self._process, how)


class Bare:
    """The bare echo."""

    def __init__(self, tools):
        self._tools = tools
        self._process = tools.begin("bare")
        self.address = self._process.stdout.readline().split()[1]

    @property
    def pid(self):
        return self._process.pid

    def stop(self):
        self._tools.processes.stop(self._process)


def _field(number, text):
    data = text.encode()
    return bytes([number << 3 | 2, len(data)]) + data


def message(*texts):
    """A gRPC frame of a message whose first fields are these short texts."""
    fields = b"".join(_field(number, text) for number, text in enumerate(texts, 1))
    return b"\0" + len(fields).to_bytes(4, "big") + fields


def h2load(tools, folder, address, path, body, seconds):
    """Unary calls of one body over 4 connections, 64 under way on each: rate and latency."""
    folder.mkdir(parents=True, exist_ok=True)
    data, log = folder / "body", folder / "calls"
    data.write_bytes(body)
    log.unlink(missing_ok=True)
    output = tools.processes.result(
        [
            "h2load", "-D", seconds, "-c", 4, "-m", 64, "-d", data,
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"--log-file={log}", f"http://{address}/{path}",
        ]  # fmt: skip
    )
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", output)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not rate or not done or any(int(done[at]) for at in (2, 3, 4)):
        raise Failed(f"h2load of {path}: {output.strip().splitlines()[-6:]}")
    taken = sorted(int(line.rsplit("\t", 1)[1]) for line in log.open())
    return {
        "rate": float(rate[1]),
        "calls": int(done[1]),
        "p50_ms": taken[len(taken) // 2] / 1e3,
        "p99_ms": taken[len(taken) * 99 // 100] / 1e3,
    }
