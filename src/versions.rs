//! Versions of everything that outlives a process or crosses to another.

/// Layout of log segments and records: what is written, and the newest that is read.
pub const LOG_FORMAT: u16 = 1;
/// Columnar encoding of events, on disk and between peers.
pub const BLOCK_FORMAT: u8 = 1;
/// Tokens, like ids and page tokens.
pub const TOKEN_FORMAT: u8 = 1;
/// Records of a checkpoint.
pub const CHECKPOINT_FORMAT: u8 = 1;
/// Oldest protocol between peers that this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol between peers that this build speaks.
pub const PROTOCOL_MAX: u32 = 1;
