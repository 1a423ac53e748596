"""Two and three nodes: what crosses the wire, what a receiver costs, how soon all show it, how soon they heal."""

import time

from nodes import Equality, Wire, until_equal
from peers import Redis
from processes import Failed

# What the nodes hold before a measurement, so that a session is open.
BEFORE = 1_000
REPLICA_SECONDS_MAX = 300
ZIPF_POSTS = 100_000
ZIPF_EXPONENT = 1.0


def wire(run):
    """Bytes a replicated like, acknowledgements and HTTP/2 included. Nothing on the link is compressed."""
    hot = _crossed(run, "hot")
    # Names of 20 bytes: five and fifteen digits.
    zipf = _crossed(run, "post-", posts=ZIPF_POSTS, zipf=ZIPF_EXPONENT)
    return {"wire_hot_bytes": hot, "wire_zipf_bytes": zipf}


def _crossed(run, post, **options):
    items = run.sizes.replicated
    between = Wire(run.tools, "counted")
    with (
        run.node("wire-one", region="one") as one,
        run.node("wire-two", region="two", peers=[("one", between.address)]) as two,
    ):
        between.lead_to(one.peer_address)
        _begin(run, one, two)
        crossed = between.crossed()
        one.stream(post=post, items=items, order="distinct", **options)
        until_equal(run.tools, [one, two], BEFORE + items)
        return (between.crossed() - crossed) / items


def _begin(run, one, *others):
    one.stream(post="before", items=BEFORE, order="distinct")
    until_equal(run.tools, [one, *others], BEFORE)


def receiver(run):
    """A stream into one node until the second has it all; a replica of Redis behind the script."""
    tools, seconds = run.tools, run.sizes.seconds
    found = {}
    with (
        run.node("sender", region="one") as one,
        run.node("receiver", region="two", peers=[("one", one.peer_address)]) as two,
    ):
        _begin(run, one, two)
        used = [node.cpu_seconds() for node in (one, two)]
        begun = time.monotonic()
        stream = one.stream(seconds=seconds, seed=run.number + 3)
        until_equal(tools, [one, two], BEFORE + stream["count"])
        took = time.monotonic() - begun
        sender, receiver_ = (node.cpu_seconds() - before for node, before in zip((one, two), used))
        found["sender_cpu_us"] = sender * 1e6 / stream["items"]
        found["receiver_cpu_us"] = receiver_ * 1e6 / stream["items"]
        found["receiver_by_sender"] = receiver_ / sender
        found["receiver_rate"] = stream["items"] / took
    master = Redis(tools, run.path("redis"))
    replica = Redis(tools, run.path("redis-replica"))
    replica.ask("REPLICAOF", "127.0.0.1", str(master.port))
    _until(lambda: "master_link_status:up" in replica.ask("INFO", "replication"), "a replica")
    begun = time.monotonic()
    script = master.load("script", seconds=seconds, pipeline=64)
    end = master.info("master_repl_offset")
    _until(lambda: replica.info("slave_repl_offset") >= end, "the replica's end")
    found["redis_replica_rate"] = script["items"] / (time.monotonic() - begun)
    replica.stop()
    master.stop()
    found["receiver_by_redis"] = found["receiver_rate"] / found["redis_replica_rate"]
    return found


def _until(holds, what):
    until = time.monotonic() + REPLICA_SECONDS_MAX
    while not holds():
        if time.monotonic() > until:
            raise Failed(f"{what} does not come")
        time.sleep(0.005)


def visible(run):
    """60 k likes a second over three nodes, in batches of 100, until everyone who watches any node sees them."""
    with (
        run.node("ap", region="ap") as ap,
        run.node("eu", region="eu", peers=[("ap", ap.peer_address)]) as eu,
        run.node(
            "us", region="us", peers=[("ap", ap.peer_address), ("eu", eu.peer_address)]
        ) as us,
    ):
        _begin(run, ap, eu, us)
        nodes = ",".join(node.address for node in (ap, eu, us))
        found = run.tools.load("visible", nodes=nodes, seconds=run.sizes.seconds * 3)
    if found["unseen"]:
        raise Failed(f"{found['unseen']} batches were not seen everywhere")
    return {
        "visible_p50_ms": found["p50_ms"],
        "visible_p99_ms": found["p99_ms"],
        "visible_rate": found["rate"],
        "visible_samples": found["samples"],
    }


def heal(run):
    """A cut link, as many likes on each side, and the time from when the link is up until all is equal."""
    items = run.sizes.likers_a_side
    between = Wire(run.tools, "switched")
    with (
        run.node("heal-one", region="one") as one,
        run.node("heal-two", region="two", peers=[("one", between.address)]) as two,
    ):
        between.switch(f"lead {one.peer_address}")
        _begin(run, one, two)
        between.switch("cut")
        one.stream(items=items, order="distinct")
        # Others than on the first side: a post of its own says so most simply.
        two.stream(post="other", items=items, order="distinct")
        # Long enough for both to have given the session up.
        time.sleep(6)
        equality = Equality(run.tools, [one, two], BEFORE + 2 * items)
        between.switch("heal")
        equality.go()
        return {"heal_s": equality.seconds()}
