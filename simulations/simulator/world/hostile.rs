//! Somebody who reaches a node's doors and means no good: noise, beginnings of real connections replayed, cut short
//! and with bits turned.
//!
//! Events and sums are replayed as they were: they carry no signatures, and whoever is let in is trusted with them.

use std::ops::Range;
use std::time::Duration;

use likewise::wire::replication::SyncRequest;
use likewise::wire::replication::frame::Body;
use prost::Message;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::World;
use super::caller::Caller;
use super::machine::{CLIENT_PORT, PEER_PORT};
use super::trace::Trace;

/// Between two attacks.
const PAUSE: Duration = Duration::from_millis(150);
/// How long an answer is listened to.
const LISTENING: Duration = Duration::from_millis(300);
const NOISE_BYTES_MAX: usize = 4 << 10;

/// Attacks a node for this long.
pub fn attack(world: &mut World, number: usize, span: Duration, seed: u64) {
    let host = world.machine(number).name();
    let trace = world.trace.clone();
    world.add_caller(move |caller| async move {
        let mut chance = StdRng::seed_from_u64(seed);
        let attacking = async {
            loop {
                let bytes = bytes(&trace, &mut chance);
                let port = match chance.random_bool(0.8) {
                    true => PEER_PORT,
                    false => CLIENT_PORT,
                };
                send(&caller, host, port, &bytes).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        // It ends by this alone.
        let _ = tokio::time::timeout(span, attacking).await;
    });
}

fn bytes(trace: &Trace, chance: &mut StdRng) -> Vec<u8> {
    let captured = trace.captured();
    if captured == 0 || chance.random_bool(0.15) {
        let mut noise = vec![0; chance.random_range(1..NOISE_BYTES_MAX)];
        chance.fill(&mut noise[..]);
        return noise;
    }
    let mut bytes = trace.beginning(chance.random_range(0..captured));
    match chance.random_range(0..3) {
        0 => {}
        1 => bytes.truncate(chance.random_range(0..=bytes.len())),
        _ => {
            let open = beside_events(&bytes);
            for _ in 0..chance.random_range(1..8) {
                if let Some(range) = open.choose(chance) {
                    let at = chance.random_range(range.clone());
                    bytes[at] ^= 1 << chance.random_range(0..8);
                }
            }
        }
    }
    bytes
}

/// HTTP/2's preface stays, so that something is read at all.
const PREFACE_BYTES: usize = 24;
/// Length, kind, flags and stream of a frame of HTTP/2.
const FRAME_HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
/// Before each message of gRPC: whether it is compressed, and its length.
const MESSAGE_HEADER_BYTES: usize = 5;

/// Where in what a peer sent there are no events: frames of HTTP/2, one by one.
fn beside_events(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = PREFACE_BYTES;
    while let Some(&[high, middle, low, kind, ..]) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        let body = at + FRAME_HEADER_BYTES;
        let end = body + u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some(content) = bytes.get(body..end) else {
            break;
        };
        if kind != DATA || !is_trusted(content) {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// Whether it holds events or sums, or something else than one whole message.
fn is_trusted(content: &[u8]) -> bool {
    let Some((header, message)) = content.split_at_checked(MESSAGE_HEADER_BYTES) else {
        return true;
    };
    let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    if len as usize != message.len() {
        return true;
    }
    let request = SyncRequest::decode(message).ok();
    let body = request.and_then(|request| request.frame?.body);
    matches!(body, Some(Body::Events(_) | Body::Audit(_)))
}

async fn send(caller: &Caller, host: &str, port: u16, bytes: &[u8]) {
    let Ok(mut wire) = caller.dial(host, port).await else {
        return;
    };
    let sending = async {
        wire.write_all(bytes).await?;
        wire.flush().await?;
        let mut answer = [0; 1 << 10];
        while wire.read(&mut answer).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whatever it answers.
    let _ = tokio::time::timeout(LISTENING, sending).await;
}
