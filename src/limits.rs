//! Every bound has its name here. Bounds that an operator may move are defaults of `config`; those
//! below are fixed, because formats or other bounds depend on them.

use std::time::Duration;

/// Bytes of a post, user or counter id.
pub const ID_BYTES_MAX: usize = 256;
/// Bytes of a request id.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Bytes of a region's name. Short, for each token spells out the regions.
pub const REGION_BYTES_MAX: usize = 24;
/// Bytes of a cluster id.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;

/// Items of one batch of writes.
pub const BATCH_ITEMS_MAX: usize = 10_000;
/// Posts in one read, or followed by one watch.
pub const READ_POSTS_MAX: usize = 1_000;
/// Counters named in one read.
pub const READ_COUNTERS_MAX: usize = 1_000;
/// Bytes of one request of a client.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Batches of one stream of writes that wait for their sync; the stream is not read further until one is answered.
pub const STREAM_BATCHES_IN_FLIGHT_MAX: usize = 64;

/// How long a new connection may take until it has said that it speaks HTTP/2. One that says nothing
/// would hold a place for ever, for nobody asks it whether it lives.
pub const PREFACE_MAX: Duration = Duration::from_secs(10);
/// Bytes of that: the connection preface of RFC 9113, section 3.4.
pub const PREFACE_BYTES: usize = 24;
/// A client's connection that is silent for this long is asked whether it lives.
pub const CLIENT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A client that does not answer that for this long is given up.
pub const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping node waits for clients' calls to end; then their connections are closed.
pub const CLIENT_DRAIN_MAX: Duration = Duration::from_secs(5);
/// Pause after the system gave no connection, such as for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Events of one block of the codec.
pub const BLOCK_EVENTS_MAX: usize = 1 << 16;
/// Bytes of one block of the codec.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Dots that one event names as removed or replaced. Far above what any history makes: a user has as
/// many live dots as regions liked at once.
pub const REMOVED_DOTS_MAX: usize = 4_096;
/// Replicas that one block, vector or table speaks of.
pub const REPLICAS_MAX: usize = 1 << 16;
/// Replicas that clients' like ids may name in the life of a process, though they never spoke to this node.
/// Far above what restarts of other regions bring before they are heard.
pub const CLIENT_REPLICAS_MAX: usize = 1_024;
/// Entries of a token.
pub const TOKEN_ENTRIES_MAX: usize = 64;
/// Characters of a token or like id that is looked at at all.
pub const TOKEN_CHARS_MAX: usize = 4_096;

/// Nodes over which an acknowledgement is passed on; beyond that nobody hears of it. Far above the length of any
/// chain of datacenters; it ends what goes round in circles.
pub const HEARD_HOPS_MAX: u32 = 8;

/// Bytes of one frame between peers.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the words with which a session is closed.
pub const CLOSE_MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Connections to the peers' listener at once; a further one waits to be accepted.
pub const PEER_CONNECTIONS_MAX: usize = 256;
/// Calls at once on one connection of a peer; a further one waits there.
pub const PEER_STREAMS_MAX: u32 = 16;
/// Frames that wait for the connection; while as many wait, a session makes none but closing ones.
pub const OUTGOING_FRAMES_MAX: usize = 64;
/// Samples of the log's end that a session keeps to know when a relay is due; a further one waits.
pub const RELAY_SAMPLES_MAX: usize = 8;
/// Marks by which a session knows how old the oldest unacknowledged event is; a further one is not made.
pub const LAG_MARKS_MAX: usize = 16;
/// Bytes of the record of one group commit, beyond which a further write waits for the next.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Bytes of one record of the log.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// Orphan removals of one part of a snapshot; more come in further parts.
pub const SNAPSHOT_ORPHANS_MAX: usize = 8_192;
/// Frames of a snapshot that is received are gathered to this size before they are written,
pub const STAGE_WRITE_BYTES: usize = 1 << 20;
/// and synced each time that this much was written.
pub const STAGE_SYNC_BYTES: u64 = 16 << 20;
/// Tries of a broken snapshot that brought nothing more; then it begins anew.
pub const SNAPSHOT_RESUMES_MAX: u32 = 10;
/// How long the log is kept for a snapshot that broke off while it was served,
pub const SNAPSHOT_KEPT: Duration = Duration::from_secs(60);
/// and for how many of them; the oldest goes first.
pub const SNAPSHOTS_KEPT_MAX: usize = 4;
/// Ranges of one audit beyond those of the round: some of those that changed since they were last sent. The others
/// wait for the next.
pub const AUDIT_CHANGED_MAX: usize = 32;
/// Operators' repairs that wait for one another; a further one is refused.
pub const REPAIRS_WAITING_MAX: usize = 16;

/// Snapshots that a node serves at once; a further one is refused, and asked for again.
pub const SNAPSHOTS_SERVED_MAX: usize = 2;

/// An add may not take this node's view of a counter beyond ± this.
pub const COUNTER_BOUND: i64 = 1 << 59;

/// Likers of one bucket, beyond which it is split.
pub const BUCKET_LIKERS_MAX: usize = 1_024;
/// Likers of a post, beyond which they are spread over all shards.
pub const NARROW_POST_LIKERS_MAX: usize = 2_048;

const _: () = assert!(COMMIT_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
/// A part of orphan removals fits into a frame: two ids, a replica, and what frames them.
const _: () = assert!(SNAPSHOT_ORPHANS_MAX * (2 * ID_BYTES_MAX + 128) < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(CLIENT_MESSAGE_BYTES_MAX <= BLOCK_BYTES_MAX);
const _: () = assert!(CLIENT_REPLICAS_MAX * 8 <= REPLICAS_MAX);
const _: () = assert!(BATCH_ITEMS_MAX <= BLOCK_EVENTS_MAX);
