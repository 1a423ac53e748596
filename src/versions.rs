//! The versions of everything that is stored, sent or handed out.

/// Segments and records of the commit log.
pub const LOG_FORMAT: u32 = 1;
/// Blocks of events, in the log and on the wire.
pub const BLOCK_FORMAT: u32 = 1;
/// Tokens and like ids.
pub const TOKEN_FORMAT: u32 = 1;
/// Records of checkpoints.
pub const CHECKPOINT_FORMAT: u32 = 1;
/// The oldest protocol between peers that this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest protocol between peers that this build speaks.
pub const PROTOCOL_MAX: u32 = 1;

const _: () = assert!(PROTOCOL_MIN <= PROTOCOL_MAX);
