"""Unary calls beside a bare echo, and reads while writers fill the node."""

from peers import Bare, Redis, h2load, message

# First fields of LikeRequest, of GetPostRequest: the post, the user or viewer.
BODY = message("unary", "u1234567")
GET = message("unary")


def calls(run):
    """Like and GetPost by h2load, and Like by a client of our own whose users differ."""
    tools, seconds = run.tools, run.sizes.seconds
    folder = run.path("h2load")
    bare = Bare(tools)
    echo = h2load(tools, folder, bare.address, "bare.Echo/Echo", BODY, seconds)
    own_echo = tools.load(
        "unary", address=bare.address, pid=bare.pid, method="echo", seconds=seconds
    )
    bare.stop()
    with run.node("unary") as node:
        events = node.events()
        service = "likewise.v1.LikeService"
        like = h2load(tools, folder, node.address, f"{service}/Like", BODY, seconds)
        events = node.events() - events
        own_like = tools.load(
            "unary", address=node.address, pid=node.pid, method="like", seconds=seconds
        )
        get = h2load(tools, folder, node.address, f"{service}/GetPost", GET, seconds)
    return {
        "echo_rate": echo["rate"],
        "like_rate": like["rate"],
        "like_by_echo": like["rate"] / echo["rate"],
        "like_p99_ms": like["p99_ms"],
        "like_events_a_call": events / like["calls"],
        "own_like_rate": own_like["rate"],
        "own_like_by_echo": own_like["rate"] / own_echo["rate"],
        "own_like_p99_ms": own_like["p99_ms"],
        "own_like_node_cpu_us": own_like["node_cpu_us"],
        "get_rate": get["rate"],
        "get_by_echo": get["rate"] / echo["rate"],
    }


def reads_beside_writers(run):
    """Reads at a steady rate of a post that is written to as fast as it goes; the same of Redis."""
    tools, seconds = run.tools, run.sizes.seconds
    with run.node("read") as node:
        # The writers begin first and end last.
        writers = tools.begin("stream", address=node.address, seconds=seconds + 2)
        read = tools.load("reads", address=node.address, seconds=seconds)
        node.checked(tools.end(writers))
    redis = Redis(tools, run.path("redis"))
    arguments = {"port": redis.port, "seconds": seconds}
    writers = tools.begin("redis", kind="script", **{**arguments, "seconds": seconds + 2})
    get = tools.load("redis", kind="get", connections=4, **arguments)
    tools.end(writers)
    redis.stop()
    return {
        "read_p99_ms": read["p99_ms"],
        "redis_get_p99_ms": get["p99_ms"],
        "read_p99_by_get": read["p99_ms"] / get["p99_ms"],
    }


def gathered(run):
    """One like a call from 256 tasks of one client that gathers them; the script from as many connections, synced always."""
    seconds, callers = run.sizes.seconds, 256
    with run.node("gathered") as node:
        ours = run.tools.load(
            "gathered", address=node.address, pid=node.pid, tasks=callers, seconds=seconds
        )
    synced = ("--appendonly", "yes", "--appendfsync", "always")
    redis = Redis(run.tools, run.path("redis"), *synced)
    theirs = redis.load("script", seconds=seconds, pipeline=1, connections=callers)
    redis.stop()
    return {
        "gathered_rate": ours["rate"],
        "gathered_p99_ms": ours["p99_ms"],
        "gathered_node_cpu_us": ours["node_cpu_us"],
        "single_script_rate": theirs["rate"],
        "gathered_by_script": ours["rate"] / theirs["rate"],
    }


def batch_reads(run):
    """BatchGetPosts of 100 posts, with the viewer's flags."""
    with run.node("feed") as node:
        found = run.tools.load(
            "batch-reads", address=node.address, pid=node.pid, seconds=run.sizes.seconds
        )
    return {
        "batch_read_rate": found["rate"],
        "batch_read_p99_ms": found["p99_ms"],
        "batch_read_node_cpu_us": found["node_cpu_us"],
    }
