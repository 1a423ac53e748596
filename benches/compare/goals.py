"""What is measured for each row of the table, and what each figure has to reach."""

from collections.abc import Callable
from dataclasses import dataclass, field

from measurements import inside, large, postgres, replicated, scaling, streamed, unary


@dataclass(frozen=True)
class Goal:
    """A bound of the median of a figure."""

    figure: str
    what: str
    least: float | None = None
    most: float | None = None
    # Whether it means something only at the full size.
    needs_size: bool = False

    def is_met(self, value):
        if self.least is not None:
            return value >= self.least
        return value <= self.most

    def bound(self):
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


@dataclass(frozen=True)
class Row:
    """One row: goals, and figures that explain them."""

    name: str
    # Gives the figures; rows that share one share its run.
    measure: Callable
    goals: tuple[Goal, ...]
    figures: dict[str, str] = field(default_factory=dict)
    # What the figures are not.
    note: str | None = None


ROWS = (
    Row(
        "streamed likes, one hot post",
        streamed.hot_post,
        (
            Goal("likes_by_script", "× the Redis script, pipelines of 64", least=12),
            Goal("likes_by_sadd", "× SADD + SCARD at its best depth", least=4),
        ),
        {
            "likes_rate": "likes/s, two streams",
            "likes_p99_ms": "ms p99 of a batch of 1,000, 16 under way",
            "one_stream_rate": "likes/s, one stream",
            "likes_node_cpu_us": "µs of the node's CPU a like",
            "script_rate": "the script/s (the better of two generators)",
            "sadd_rate": "SADD + SCARD/s",
            "sadd_depth": "pairs a pipeline at its best",
        },
    ),
    Row(
        "repeated likes, streamed",
        streamed.repeated,
        (
            Goal("again_cpu", "× the CPU of a new like", most=1.1),
            Goal("again_wire", "× the wire of a new like", most=1.1),
            Goal("again_memory", "× the memory before", most=1.05, needs_size=True),
            Goal("again_checkpoint", "× the checkpoint before", most=1.05, needs_size=True),
        ),
        {"new_cpu_us": "µs a new like", "again_cpu_us": "µs a repeated like"},
        note="wire: to a second region; \"do not grow\" is taken as by at most a twentieth",
    ),
    Row(
        "unary Like",
        unary.calls,
        (
            Goal("like_by_echo", "× the bare echo, h2load", least=0.65),
            Goal("like_p99_ms", "ms p99, h2load", most=10),
            Goal("own_like_by_echo", "× the bare echo, every like of another user", least=0.65),
            Goal("own_like_p99_ms", "ms p99, every like of another user", most=10),
        ),
        {
            "like_rate": "calls/s, h2load",
            "echo_rate": "echoes/s, h2load",
            "like_events_a_call": "events a call under h2load",
            "own_like_rate": "calls/s, every like of another user",
            "own_like_node_cpu_us": "µs of the node's CPU, the same",
        },
        note="h2load sends one body, so most of its likes wait for the same sync and become one event; "
        "so a tonic client measures likes of different users too, and both have to reach the goal",
    ),
    Row(
        "unary GetPost",
        unary.calls,
        (Goal("get_by_echo", "× the bare echo, h2load", least=0.9),),
        {"get_rate": "calls/s"},
    ),
    Row(
        "reads while writers fill the node",
        unary.reads_beside_writers,
        (
            Goal("read_p99_ms", "ms p99 of GetPost", most=5),
            Goal("read_p99_by_get", "× the p99 of Redis GET beside its script", most=0.5),
        ),
        {"redis_get_p99_ms": "ms p99 of Redis GET"},
        note="1,000 reads a second over 4 connections, each timed from when it was due",
    ),
    Row(
        "the gathering client, 256 tasks",
        unary.gathered,
        (Goal("gathered_by_script", "× the Redis script without pipeline, synced always", least=3),),
        {
            "gathered_rate": "likes/s",
            "gathered_p99_ms": "ms p99",
            "gathered_node_cpu_us": "µs of the node's CPU a like",
            "single_script_rate": "the script/s, 256 connections",
        },
    ),
    Row(
        "exact count in process, 200 writers",
        inside.counts,
        (
            Goal("count_p50_ns", "ns median", most=200),
            Goal("count_p99_ns", "ns p99", most=2_000),
        ),
        {"count_writes_rate": "likes/s of the writers"},
    ),
    Row(
        "BatchGetPosts, 100 posts with viewer",
        unary.batch_reads,
        (Goal("batch_read_rate", "posts/s", least=1_000_000),),
        {"batch_read_p99_ms": "ms p99 of a call", "batch_read_node_cpu_us": "µs a post"},
    ),
    Row(
        "in process, one hot post, two threads",
        inside.likes,
        (Goal("inside_rate", "likes/s", least=5_000_000),),
        {"inside_cpu_us": "µs of CPU a like, the generator's included"},
        note="the log goes to a file system in memory",
    ),
    Row(
        "longest stall of one write",
        large.growth,
        (Goal("stall_ms", "ms beyond its sync", most=10, needs_size=True),),
        {
            "sync_ms": "ms of a lone write on the idle node (taken off)",
            "stalled_p99_ms": "ms p99 of the lone writer",
            "growth_rate": "likes/s meanwhile",
            "machine_stall_ms": "ms by which the machine itself woke a sleeper too late before, at the most",
        },
        note="one caller on the growing post; it grows at a steady rate, for at full speed a write waits in line "
        "behind sixteen batches",
    ),
    Row(
        "memory per liker",
        large.growth,
        (Goal("memory_bytes", "bytes, the whole process", most=22, needs_size=True),),
        {"memory_peak_bytes": "bytes at the most"},
    ),
    Row(
        "disk per liker",
        large.growth,
        (
            Goal("disk_bytes", "bytes after the load", most=20, needs_size=True),
            Goal("disk_churned_bytes", "bytes after unlikes and re-likes", most=30, needs_size=True),
        ),
        note="half of the likers unlike and like again: as many events as there are likers",
    ),
    Row(
        "start after SIGKILL",
        large.start,
        (
            Goal("start_s", "s to the first like, answered as repeated", most=2, needs_size=True),
            Goal("start_by_redis", "× Redis's snapshot load", most=0.4, needs_size=True),
            Goal("full_speed_s", "s to 90 % of the speed before", most=4, needs_size=True),
        ),
        {
            "load_rate": "likes/s of the load",
            "after_start_rate": "likes/s after the start",
            "redis_load_s": "s of Redis's snapshot load",
            "redis_memory_bytes": "bytes a liker in Redis",
        },
    ),
    Row(
        "wire per replicated like",
        replicated.wire,
        (
            Goal("wire_hot_bytes", "bytes, hot post", most=9),
            Goal("wire_zipf_bytes", "bytes, Zipf over 100 k posts of 20-byte names", most=18),
        ),
        note="all bytes over TCP, both ways",
    ),
    Row(
        "a second node, streamed",
        replicated.receiver,
        (
            Goal("receiver_by_sender", "× the sender's CPU", most=1.0),
            Goal("receiver_by_redis", "× a Redis replica's rate", least=5),
        ),
        {
            "sender_cpu_us": "µs a like at the sender",
            "receiver_cpu_us": "µs a like at the receiver",
            "receiver_rate": "likes/s until both are equal",
            "redis_replica_rate": "likes/s of the replica",
        },
    ),
    Row(
        "three nodes, 60 k likes/s: visible everywhere",
        replicated.visible,
        (
            Goal("visible_p50_ms", "ms p50", most=6),
            Goal("visible_p99_ms", "ms p99", most=25),
            Goal("visible_rate", "likes/s were taken", least=59_000),
        ),
        {"visible_samples": "batches watched"},
    ),
    Row(
        "heal after a cut, 1 M likes on each side",
        replicated.heal,
        (Goal("heal_s", "s until all is equal", most=4, needs_size=True),),
    ),
    Row(
        "cost per streamed like",
        scaling.cost,
        (
            Goal("cost_by_likers", "×, 1 k → 10 M likers on a post", most=1.6, needs_size=True),
            Goal("cost_by_posts", "×, 1 → 1 M posts", most=3, needs_size=True),
        ),
        {
            "cost_small_us": "µs, 1 k likers",
            "cost_large_us": "µs, 10 M likers",
            "cost_one_post_us": "µs, 1 post",
            "cost_many_posts_us": "µs, 1 M posts",
        },
    ),
    Row(
        "overload, three times the capacity",
        scaling.overload,
        (
            Goal("goodput_by_peak", "× the peak", least=0.8),
            Goal("offered_by_peak", "× the peak was offered", least=2.9),
            Goal("refused", "refused with RESOURCE_EXHAUSTED", least=1),
            Goal("refused_without_advice", "of them without retry advice", most=0),
            Goal("failed", "failed otherwise", most=0),
            Goal("held_back", "held back by 20,000 unanswered calls", most=0),
        ),
        {
            "peak_rate": "batches of 1,000 a second at the peak",
            "unanswered_most": "calls unanswered at the most",
            "overload_p99_ms": "ms p99 of calls that were taken",
            "overload_memory_mb": "MB that the node grew by",
            "small_peak_rate": "batches of 100 a second at their peak",
            "small_offered_by_peak": "× that peak was offered of them",
            "small_goodput_by_peak": "× that peak was taken",
            "small_failed": "of them failed otherwise",
            "small_overload_p99_ms": "ms p99 of those that were taken",
            "small_overload_memory_mb": "MB that the node grew by meanwhile",
        },
    ),
)

POSTGRES = Row(
    "PostgreSQL upsert",
    postgres.upserts,
    (),
    {
        "postgres_rate": "likes/s, one a statement, 50 clients, synced",
        "postgres_batch_rate": "likes/s, 1,000 a statement, synced",
    },
)
