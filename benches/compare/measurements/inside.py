"""The engine in the load generator's own process, without gRPC."""

import contextlib
import os
import tempfile
from pathlib import Path

from processes import emptied


def counts(run):
    """The exact count while 200 tasks write."""
    found = run.tools.load(
        "counts", folder=emptied(run.path("counts")), seconds=run.sizes.seconds
    )
    return {
        "count_p50_ns": found["p50_ns"],
        "count_p99_ns": found["p99_ns"],
        "count_writes_rate": found["rate"],
    }


def likes(run):
    """Likes of one post on two threads; the log goes to memory, so that no disk is waited for."""
    with _in_memory() as folder:
        found = run.tools.load("engine", folder=folder, seconds=run.sizes.seconds)
    return {"inside_rate": found["rate"], "inside_cpu_us": found["client_cpu_us"]}


@contextlib.contextmanager
def _in_memory():
    with tempfile.TemporaryDirectory(prefix=f"likewise-compare-{os.getpid()}-", dir="/dev/shm") as folder:
        yield Path(folder)
