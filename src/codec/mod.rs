//! Bytes ↔ domain, with strict limits: blocks of events, likers, version vectors, tokens and like ids.
//!
//! One encoding serves disk and wire; `docs/protocol.md` gives it byte by byte. Whatever is read here
//! may come from a hostile peer or a failing disk: nothing is allocated before its size is known to be
//! backed by input or bounded by a limit.

pub mod block;
mod columns;
mod dots;
pub mod likers;
pub mod reader;
pub mod text;
pub mod vector;

pub use reader::DecodeError;
