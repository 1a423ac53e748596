"""What a streamed like costs as a post grows, and as posts become many; and a node that is asked for too much."""

SMALL = 1_000
# Of the likers of the large post, so many are measured over posts.
SHARE = 4


def cost(run):
    """CPU of the node. On one post: likes and unlikes by chance, of twice as many users as like it, so that
    it keeps its size; over posts: new likes."""
    seconds, likers = run.sizes.seconds, run.sizes.likers
    found = {}
    with run.node("cost-small") as node:
        found["cost_small_us"] = _steady(node, SMALL, seconds)
    with run.node("cost-large") as node:
        found["cost_large_us"] = _steady(node, likers, seconds)
    with run.node("cost-one") as node:
        found["cost_one_post_us"] = _spread(run, node, 1)
    with run.node("cost-many") as node:
        found["cost_many_posts_us"] = _spread(run, node, run.sizes.posts)
    found["cost_by_likers"] = found["cost_large_us"] / found["cost_small_us"]
    found["cost_by_posts"] = found["cost_many_posts_us"] / found["cost_one_post_us"]
    return found


def _steady(node, likers, seconds):
    node.stream(items=likers, users=2 * likers, order="distinct")
    found = node.stream(users=2 * likers, operations="mixed", seconds=seconds)
    return found["node_cpu_us"]


def _spread(run, node, posts):
    """The posts are there before: one like each, then what is measured."""
    if posts > 1:
        node.stream(post="post-", posts=posts, items=2 * posts, users=4 * posts, order="distinct")
    items = run.sizes.likers // SHARE
    found = node.stream(
        post="post-" if posts > 1 else "hot", posts=posts, items=items, users=10_000_000, seed=9,
        seconds=4 * run.sizes.seconds,
    )  # fmt: skip
    return found["node_cpu_us"]


def overload(run):
    """In batches as streams send them, and in small ones, of which a refusal costs a larger part."""
    found = _overload(run, 1_000, (16, 64))
    small = _overload(run, 100, (16, 64, 256))
    beside = ("peak_rate", "offered_by_peak", "goodput_by_peak", "failed", "overload_p99_ms", "overload_memory_mb")
    return found | {f"small_{name}": small[name] for name in beside}


def _overload(run, batch, depths):
    """The node on one core, the generator on the other: as much as it takes, then three times that. Each on a post of its own,
    for a like costs more on a larger one."""
    with run.node(f"overloaded-{batch}", cpu=0) as node:
        # Long enough for queues to fill, if they do.
        seconds = 3 * run.sizes.seconds
        common = {"address": node.address, "batch": batch, "cpu": 1, "threads": 1, "seconds": seconds}
        peaks = [
            run.tools.load("overload", post=f"peak-{in_flight}", in_flight=in_flight, **common)
            for in_flight in depths
        ]
        peak = max(found["goodput"] for found in peaks)
        memory = node.memory_bytes()
        over = run.tools.load("overload", post="over", rate=3 * peak, **common)
        memory = node.memory_bytes() - memory
    return {
        "peak_rate": peak,
        "offered_by_peak": over["offered"] / peak,
        "goodput_by_peak": over["goodput"] / peak,
        "refused": over["refused"],
        "refused_without_advice": over["refused_without_advice"],
        "failed": over["failed"],
        "held_back": over["held_back"],
        "unanswered_most": over["unanswered_most"],
        "overload_p99_ms": over["p99_ms"],
        "overload_memory_mb": memory / 1e6,
    }
