"""Likes on streams: against Redis with its pipelines, and of users who like already."""

import machine
from nodes import Wire, until_equal
from peers import Redis

SADD_DEPTHS = (16, 64, 256, 1024)
PIPELINE = 64
# The peer has fifty connections. Batches of one stream are applied one after the other.
STREAMS = {"streams": 2, "in_flight": 8}
BEFORE = 1_000


def hot_post(run):
    """One hot post, users random among 10 M, acknowledged after the sync."""
    seconds = run.sizes.seconds
    found = {}
    with run.node("hot") as node:
        likes = node.stream(seconds=seconds, seed=run.number + 1, **STREAMS)
        found["likes_rate"] = likes["rate"]
        found["likes_p99_ms"] = likes["p99_ms"]
        found["likes_node_cpu_us"] = likes["node_cpu_us"]
    with run.node("hot-alone") as node:
        alone = node.stream(seconds=seconds, seed=run.number + 1)
        found["one_stream_rate"] = alone["rate"]
    redis = Redis(run.tools, run.path("redis"))
    ours = redis.load("script", seconds=seconds, pipeline=PIPELINE)["rate"]
    redis.ask("FLUSHALL")
    theirs = redis.benchmark_script(seconds, PIPELINE)
    # The peer gets the better of both generators.
    found["script_rate"] = max(ours, theirs)
    pairs = {}
    for depth in SADD_DEPTHS:
        redis.ask("FLUSHALL")
        pairs[depth] = redis.load("sadd-scard", seconds=seconds, pipeline=depth)["rate"]
    redis.stop()
    found["sadd_depth"] = max(pairs, key=pairs.get)
    found["sadd_rate"] = pairs[found["sadd_depth"]]
    found["likes_by_script"] = found["likes_rate"] / found["script_rate"]
    found["likes_by_sadd"] = found["likes_rate"] / found["sadd_rate"]
    return found


def repeated(run):
    """Likes of users who like already, beside new ones: time, wire to a second region, memory, checkpoint."""
    wire = Wire(run.tools, "counted")
    with (
        run.node("again-one", region="one") as one,
        run.node("again-two", region="two", peers=[("one", wire.address)]) as two,
    ):
        wire.lead_to(one.peer_address)
        # What the session costs at its beginning is no like's.
        one.stream(post="before", items=BEFORE, order="distinct")
        until_equal(run.tools, [one, two], BEFORE)
        passes = [_pass(run, one, two, wire) for _ in range(2)]
    new, again = passes
    return {
        "again_cpu": again["cpu_us"] / new["cpu_us"],
        "again_wire": again["wire"] / new["wire"],
        "again_memory": again["memory"] / new["memory"],
        "again_checkpoint": again["checkpoint"] / new["checkpoint"],
        "new_cpu_us": new["cpu_us"],
        "again_cpu_us": again["cpu_us"],
    }


def _pass(run, one, two, wire):
    items = run.sizes.replicated
    crossed = wire.crossed()
    found = one.stream(items=items, order="distinct")
    until_equal(run.tools, [one, two], BEFORE + items)
    crossed = wire.crossed() - crossed
    run.settle()
    return {
        "cpu_us": found["node_cpu_us"],
        "wire": crossed / items,
        "memory": one.memory_bytes(),
        "checkpoint": machine.disk_bytes(one.folder / "sled"),
    }
