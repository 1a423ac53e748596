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
/// Likers of one page.
pub const PAGE_LIKERS_MAX: usize = 10_000;
/// Likers of a page that does not say.
pub const PAGE_LIKERS_DEFAULT: usize = 1_000;
/// Posts that are explained at once, each at the cost of its likers; a further one is refused.
pub const EXPLANATIONS_MAX: usize = 4;
/// How often an explanation begins anew because the post changed meanwhile; then it goes without a fingerprint.
pub const EXPLANATION_READINGS_MAX: usize = 3;
/// Regions named in one wait.
pub const WAIT_REGIONS_MAX: usize = 64;
/// Bytes that a client may send ahead on one call, and on all calls of a connection.
///
/// h2 closes a connection on which small frames wait unread: each is counted as 256 bytes, against half the
/// connection's window. So one call's window full of the smallest batches must be far less than that half. A window that
/// adapts begins with 64 KiB for all calls together, which a few hundred small ones that wait fill.
pub const CLIENT_STREAM_WINDOW: u32 = 256 << 10;
pub const CLIENT_CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of one request of a client.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Batches of one stream of writes that wait for their sync; the stream is not read further until one is answered.
pub const STREAM_BATCHES_IN_FLIGHT_MAX: usize = 64;
/// How long a full node waits for the end of a message that it does not read, before it refuses the call.
pub const REFUSED_MESSAGE_MAX: Duration = Duration::from_secs(1);

/// Bytes of a file of certificates or a key.
pub const PEM_FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a refused connection is kept, so that the other side reads why, and how many of its bytes are
/// passed over meanwhile.
pub const REFUSAL_LINGER: Duration = Duration::from_millis(500);
pub const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// How long the handshake of an accepted connection may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// One in so many of a listener's connections may be in its handshake; a further one is not taken until one
/// of these is over, or the oldest has had its grace and is given up.
pub const HANDSHAKES_SHARE: usize = 2;
/// How long a handshake is left alone while others wait for its place.
pub const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
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
/// Dots that the events of one block name together. More than are ever made, for each counts with more than two bytes of
/// what a batch may take.
pub const BLOCK_DOTS_MAX: usize = BLOCK_BYTES_MAX / 2;
/// Dots that one event names as removed or replaced. Far above what any history makes: a user has as
/// many live dots as regions liked at once.
pub const REMOVED_DOTS_MAX: usize = 4_096;
/// Replicas that one block, vector or table speaks of.
pub const REPLICAS_MAX: usize = 1 << 16;
/// Replicas in the table from which on none is added that peers only speak of; the rest is for those that greet, and
/// those whose events come.
pub const CLAIMED_REPLICAS_MAX: usize = REPLICAS_MAX / 4 * 3;
/// Replicas that clients' like ids may name in the life of a process, though they never spoke to this node.
/// Far above what restarts of other regions bring before they are heard.
pub const CLIENT_REPLICAS_MAX: usize = 1_024;
/// Entries of a token.
pub const TOKEN_ENTRIES_MAX: usize = 64;
/// Characters of a token, like id or page token that is looked at at all.
pub const TOKEN_CHARS_MAX: usize = 4_096;

/// Nodes over which an acknowledgement is passed on; beyond that nobody hears of it. Far above the length of any
/// chain of datacenters; it ends what goes round in circles.
pub const HEARD_HOPS_MAX: u32 = 8;
/// Passed on acknowledgements in one frame: one a region, and a few for clones.
pub const HEARD_MAX: usize = 512;
/// Regions of which acknowledgements are remembered that came by hearsay; those of further ones are not.
pub const REGIONS_HEARD_MAX: usize = 256;
/// Marks by which a node knows up to when it has a region's events; beyond that every other one goes.
pub const COMPLETE_MARKS_MAX: usize = 16;

/// Bytes of one frame between peers.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes that the elements of one frame of a peer may take once it is decoded, by the sizes of their types. An
/// empty element takes two bytes on the wire and many in memory: without this, one frame takes half a gigabyte.
/// Room for a Hello with as many replicas as a table has, each with a predecessor.
pub const PEER_DECODED_BYTES_MAX: usize = 4 * PEER_MESSAGE_BYTES_MAX;
/// The same for the messages of clients, and for the answers that the client library reads.
pub const CLIENT_DECODED_BYTES_MAX: usize = 8 * CLIENT_MESSAGE_BYTES_MAX;
/// Messages within messages, one in another. No message of ours comes near.
pub const MESSAGE_DEPTH_MAX: usize = 16;
/// Entries of all predecessors that one peer describes in a session. Normally one or two a replica.
pub const LINEAGE_ENTRIES_MAX: usize = 4 * REPLICAS_MAX;
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

/// Bytes of one message of the membership protocol, which was made for the datagrams of UDP. It fills them up
/// to 65,507 bytes and leaves three bytes of its head out of that account.
pub const GOSSIP_DATAGRAM_BYTES_MAX: usize = 65_507 + 3;
/// Bytes that what is packed in one may unpack to. Not below all that a node may have heard: it passes that on,
/// and would be heard by nobody else.
pub const GOSSIP_UNPACKED_BYTES_MAX: usize = 640 << 10;
/// Runs of nodes that the membership protocol knows at once, those that are gone and not yet forgotten
/// included; what is said of a further one is passed over. Its summary of all of them must fit in a datagram
/// and leave room for news.
pub const GOSSIP_NODES_MAX: usize = 256;
/// How many of them only nodes may take that speak to this one themselves, lest hearsay keep them out.
pub const GOSSIP_NODES_RESERVED: usize = 64;
/// Runs of one region among them that are known by hearsay. Above the restarts within the time in which
/// those that are gone are forgotten.
pub const GOSSIP_NODES_OF_REGION_MAX: usize = 16;
/// Regions that the membership remembers.
pub const GOSSIP_REGIONS_MAX: usize = 64;
/// Bytes of what one run of a node says of itself in one message of the membership protocol: its name, a
/// generation, an address, and three numbers.
pub const GOSSIP_DIGEST_BYTES: usize = 2 + REGION_BYTES_MAX + 1 + 32 + 8 + 19 + 24;
/// Bytes of a value that a node announces. Above an address with the longest host name.
pub const GOSSIP_VALUE_BYTES_MAX: usize = 512;
/// Values of one run of a node in one message.
pub const GOSSIP_VALUES_MAX: usize = 16;
/// Peers with whom gossip is exchanged at once; a further one is refused.
pub const GOSSIP_PEERS_MAX: usize = GOSSIP_NODES_RESERVED;
/// Messages of one peer in one interval of the gossip; a further one is dropped. Some times what an honest
/// peer sends.
pub const GOSSIP_BURST_MAX: u32 = 32;
/// Messages that wait for the membership protocol, or for a peer's connection; a further one takes the place
/// of the oldest.
pub const GOSSIP_QUEUE_MAX: usize = 64;

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

const _: () = assert!(REFUSAL_LINGER.as_millis() < HANDSHAKE_MAX.as_millis());
const _: () = assert!(HANDSHAKE_GRACE.as_millis() < HANDSHAKE_MAX.as_millis());
const _: () = assert!(COMMIT_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
/// A part of orphan removals fits into a frame: two ids, a replica, and what frames them.
const _: () = assert!(SNAPSHOT_ORPHANS_MAX * (2 * ID_BYTES_MAX + 128) < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(CLIENT_MESSAGE_BYTES_MAX <= BLOCK_BYTES_MAX);
// A page is an answer that clients take by default: as long as what they may send.
const _: () = assert!(PAGE_LIKERS_MAX * (ID_BYTES_MAX + 8) < CLIENT_MESSAGE_BYTES_MAX);
const _: () = assert!(CLIENT_REPLICAS_MAX * 8 <= REPLICAS_MAX);
// The protocol packs its news in blocks of 16 KiB, and fails if less than one is left beside the summary.
const _: () =
    assert!(GOSSIP_NODES_MAX * GOSSIP_DIGEST_BYTES + 2 * (16 << 10) < GOSSIP_DATAGRAM_BYTES_MAX);
const _: () = assert!(GOSSIP_NODES_OF_REGION_MAX < GOSSIP_NODES_MAX - GOSSIP_NODES_RESERVED);
const _: () = assert!(REGIONS_HEARD_MAX < HEARD_MAX);
const _: () = assert!(BATCH_ITEMS_MAX <= BLOCK_EVENTS_MAX);
