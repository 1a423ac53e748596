//! Somebody who reaches a node's doors and means no good: noise, beginnings of real connections replayed, cut short
//! and with bits turned.

use std::time::Duration;

use rand::rngs::StdRng;
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
            // The preface stays, so that something is read at all.
            for _ in 0..chance.random_range(1..8) {
                let at = chance.random_range(24.min(bytes.len() - 1)..bytes.len());
                bytes[at] ^= 1 << chance.random_range(0..8);
            }
        }
    }
    bytes
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
