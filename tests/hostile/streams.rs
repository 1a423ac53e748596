//! Peers that are silent, slow, or speak something else.

use std::time::Duration;

use likewise::wire::replication::CloseReason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::intruder::{Intruder, replica};
use super::scene::Scene;

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection_alone() {
    let mut scene = Scene::start().await;
    let before = scene.state().await;
    let starts: [&[u8]; 3] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for start in starts {
        let mut stream = TcpStream::connect(scene.eu().peer_address)
            .await
            .expect("it listens");
        stream.write_all(start).await.expect("sent");
        let mut noise = 1u64;
        let noise = std::iter::repeat_with(|| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        });
        let noise: Vec<u8> = noise.take(64 << 10).collect();
        // The node may close while it is being sent.
        if let Err(error) = stream.write_all(&noise).await {
            println!("{error}");
        }
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        println!("{start:?}: {ended:?}, {} bytes", answer.len());
        assert!(ended.is_ok(), "it is ended");
    }
    assert_eq!(scene.state().await, before);
    scene.others_go_on().await;
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let session = Intruder::silent(address).await;
    scene
        .refuses(
            "no Hello",
            session,
            CloseReason::Silence,
            "nothing was received",
        )
        .await;
    let session = Intruder::greet(address, &replica("ap", 9)).await;
    scene
        .refuses(
            "no word",
            session,
            CloseReason::Silence,
            "nothing was received",
        )
        .await;
    scene.others_go_on().await;
}

/// It lives, reads nothing, and acknowledges nothing.
#[tokio::test]
async fn a_peer_that_never_reads_holds_up_nobody() {
    let mut scene = Scene::start().await;
    let session = Intruder::greet(scene.eu().peer_address, &replica("ap", 9)).await;
    let alive = session.keep_alive();
    let memory = scene.eu().memory_peak_kb();
    scene.write_much().await;
    scene.others_go_on().await;
    let grown = scene.eu().memory_peak_kb() - memory;
    println!("the peak of memory grew by {grown} KB from {memory} KB");
    assert!(!alive.is_finished(), "the session is still there");
    alive.abort();
    drop(session);
    scene.others_go_on().await;
}

/// More connections than the listener takes wait; those that are open go on.
#[tokio::test]
async fn connections_that_say_nothing_are_given_up() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    scene.others_go_on().await;
    for mut stream in silent {
        let mut answer = [0; 1_024];
        let ended = async { while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {} };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert!(ended.is_ok(), "it is ended");
    }
    scene.others_go_on().await;
}
