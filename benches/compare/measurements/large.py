"""A post of 10 M likers: the stalls while it grows, its memory, its disk, and a start after SIGKILL."""

import signal
import statistics
import time

import machine
from peers import Redis
from processes import Failed

IDLE_SECONDS = 2
MACHINE_SECONDS = 10
# Of the windows of 100 ms, so many together tell a rate.
WINDOWS = 5
WINDOW_SECONDS = 0.1
FULL_SPEED = 0.9


def growth(run):
    """Grows a post at a steady rate beside a lone writer, then looks at memory and disk, then churns it."""
    tools, likers = run.tools, run.sizes.likers
    found = {"machine_stall_ms": machine.longest_delay_ms(MACHINE_SECONDS)}
    with run.node("large") as node:
        # Users whom the stream does not have.
        lone = {"address": node.address, "post": "hot", "from": 2 * likers}
        idle = tools.load("lone", seconds=IDLE_SECONDS, **lone)
        lone["from"] += idle["calls"]
        writer = tools.begin("lone", **lone)
        grown = tools.load(
            "stream", address=node.address, pid=node.pid, items=likers, users=likers,
            order="distinct", rate=run.sizes.growth_rate,
        )  # fmt: skip
        beside = tools.end(writer)
        found["sync_ms"] = idle["p50_ms"]
        found["stall_ms"] = beside["max_ms"] - idle["p50_ms"]
        found["stalled_p99_ms"] = beside["p99_ms"]
        found["growth_rate"] = grown["rate"]
        run.rest()
        found["disk_bytes"] = machine.disk_bytes(node.folder) / likers
        found["memory_bytes"] = node.memory_bytes() / likers
        found["memory_peak_bytes"] = machine.memory_bytes(node.pid, "VmHWM") / likers
        half = likers // 2
        node.stream(items=half, users=likers, order="distinct", operations="unlike")
        again = tools.load(
            "stream", address=node.address, items=half, users=likers, order="distinct"
        )
        expected = likers + idle["changed"] + beside["changed"]
        if again["count"] != expected:
            raise Failed(f"the count is {again['count']} in place of {expected}")
        run.rest()
        found["disk_churned_bytes"] = machine.disk_bytes(node.folder) / likers
    return found


def start(run):
    """Kills a node at the end of a load, starts it, and likes again; beside Redis, which loads a snapshot."""
    tools, likers = run.tools, run.sizes.likers
    found = {}
    with run.node("killed") as node:
        load = node.stream(items=likers, users=likers, order="distinct")
        node.kill()
        full = statistics.median(load["windows"][len(load["windows"]) // 2 :])
        begun = time.monotonic()
        node.start()
        # The first of the distinct users has the number 0.
        first = tools.load("lone", address=node.address, calls=1, **{"from": 0})
        found["start_s"] = time.monotonic() - begun
        if first["changed"]:
            raise Failed("the like of an existing liker was answered as new")
        delay = time.monotonic() - begun
        more = tools.load(
            "stream", address=node.address, users=2 * likers, seconds=6, seed=run.number + 2
        )
        found["full_speed_s"] = delay + _until_fast(more["windows"], full)
        found["load_rate"] = load["rate"]
        found["after_start_rate"] = more["rate"]
    redis = Redis(tools, run.path("redis"))
    redis.load("script", items=likers, users=likers, order="distinct", pipeline=64)
    found["redis_memory_bytes"] = redis.memory_bytes() / likers
    redis.ask("SAVE")
    redis.stop(signal.SIGKILL)
    begun = time.monotonic()
    redis = Redis(tools, redis.folder, "--appendonly", "no", keep=True)
    found["redis_load_s"] = time.monotonic() - begun
    if redis.ask("SCARD", "likes:hot") != f":{likers}":
        raise Failed("Redis did not load what was saved")
    redis.stop()
    found["start_by_redis"] = found["start_s"] / found["redis_load_s"]
    return found


def _until_fast(windows, full):
    """Seconds until likes first came at nearly the full rate; beyond the time that was looked at if never."""
    for at in range(len(windows) - WINDOWS + 1):
        if statistics.mean(windows[at : at + WINDOWS]) >= FULL_SPEED * full:
            return at * WINDOW_SECONDS
    return len(windows) * WINDOW_SECONDS
