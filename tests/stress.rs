//! Threads at once on one engine: batches on a hot post that spreads, peers' blocks, checkpoints, reads
//! of one instant. Nothing stands still, and each published sum belongs to its frontier.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use likewise::adapters::threads::ThreadWorkers;
use likewise::engine::Engine;
use likewise::engine::command::{Command, Write};
use likewise::engine::commit::Refused;
use likewise::engine::read::Detail;
use likewise::engine::remote::RemoteError;
use likewise::engine::write::WriteError;
use likewise::log::Position;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::oracle::{NamedVector, Oracle};
use support::{Machine, add, like, post, unlike, user};

const LASTS: Duration = Duration::from_secs(3);
const WRITERS: u64 = 4;

/// Whether the time is up.
#[derive(Clone, Default)]
struct Bell(Arc<AtomicBool>);

impl Bell {
    fn rang(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

async fn write(engine: &Engine, commands: Vec<Command>) {
    let request = None;
    match engine.write(&Write { commands, request }).await {
        Ok(_) | Err(WriteError::Refused(Refused::DiskFull)) => {}
        Err(error) => panic!("{error:?}"),
    }
}

/// Likes and unlikes of users of its own, and of a few that all writers have in common.
async fn writer(engine: Arc<Engine>, number: u64, bell: Bell) {
    let mut rng = StdRng::seed_from_u64(number);
    while !bell.rang() {
        let mut commands = Vec::new();
        for _ in 0..rng.random_range(1..40) {
            let own = format!("{number}-{}", rng.random_range(0..1_500));
            let shared = format!("s{}", rng.random_range(0..3));
            commands.push(match rng.random_range(0..12) {
                0..=6 => like("hot", &own),
                7..=8 => unlike("hot", &own),
                9 => like("hot", &shared),
                10 => add("hot", "views", 1),
                _ => like(&format!("p{}", rng.random_range(0..9)), &own),
            });
        }
        write(&engine, commands).await;
        write(
            &engine,
            vec![like("hot", &format!("s{}", rng.random_range(0..3)))],
        )
        .await;
    }
}

/// What was published: the frontier, and the sum that stood with it.
async fn observer(engine: Arc<Engine>, bell: Bell) -> HashMap<String, u128> {
    let mut changed = engine.board().subscribe();
    let mut seen = HashMap::new();
    while !bell.rang() {
        changed.mark_unchanged();
        let newest = engine.board().newest();
        let named = newest.vector.iter();
        let mut named: Vec<_> = named
            .map(|(replica, seq)| (newest.replicas.id(replica).clone(), seq))
            .collect();
        named.sort();
        seen.insert(format!("{named:?}"), newest.sums.total().0);
        let waited = tokio::time::timeout(Duration::from_millis(50), changed.changed()).await;
        assert!(!matches!(waited, Ok(Err(_))), "the board lives");
    }
    seen
}

#[test]
fn threads_at_once_neither_stand_still_nor_disagree() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(6)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let all = stress();
        let all = tokio::time::timeout(20 * LASTS, all).await;
        all.expect("somebody stands still");
    });
}

async fn stress() {
    let peer = Machine::new("us", 1);
    let peer = peer.start().await;
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..1_500 {
        let who = format!(
            "{}-{}",
            rng.random_range(0..WRITERS),
            rng.random_range(0..1_500)
        );
        peer.write(like("hot", &who)).await;
    }
    let blocks = peer.blocks(Position::START).await;
    let mut machine = Machine::new("eu", 2);
    machine.log.segment_bytes = 16 << 20;
    machine.log.group_bytes_max = 4 << 20;
    let workers = ThreadWorkers::new(tokio::runtime::Handle::current());
    let (node, log) = machine.start_with(&workers).await;
    let (engine, bell) = (node.engine.clone(), Bell::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(writer(engine.clone(), number, bell.clone())))
        .collect();
    let watching = tokio::spawn(observer(engine.clone(), bell.clone()));
    let remote = tokio::spawn({
        let engine = engine.clone();
        async move {
            for block in &blocks {
                while let Err(error) = engine.apply_remote(block) {
                    assert!(matches!(error, RemoteError::Refused(_)), "{error:?}");
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let reading = tokio::spawn({
        let (engine, bell) = (engine.clone(), bell.clone());
        async move {
            while !bell.rang() {
                let view = engine.view_post(&post("hot"), Some(&user("s1")), Detail::Regions);
                let entries = view.regions.iter();
                let sum: u64 = entries
                    .map(|entry| entry.increments - entry.decrements)
                    .sum();
                assert_eq!(view.count, sum, "at every read");
                let instant = engine.instant();
                assert!(
                    instant
                        .frontier
                        .vector()
                        .covers_all(&instant.published.vector)
                );
                engine.barrier().await.expect("the log works");
            }
        }
    });
    let mut checkpointer = node.checkpointer;
    let begun = Instant::now();
    while begun.elapsed() < LASTS {
        checkpointer.checkpoint().await.expect("stored");
    }
    bell.0.store(true, Ordering::Release);
    for task in writers.into_iter().chain([remote, reading]) {
        task.await.expect("no panic");
    }
    let seen = watching.await.expect("no panic");
    engine.queue().close(Refused::Stopping);
    log.await.expect("no panic");
    drop((engine, checkpointer, node.engine, node.reader));
    // Another process: what was published must be what the log says.
    machine.disk.kill();
    let node = machine.start().await;
    let fresh = Machine::new("ap", 3);
    let fresh = fresh.start().await;
    let mut oracle = Oracle::default();
    let mut compared = 0;
    for block in node.blocks(Position::START).await {
        oracle.learn(&block);
        assert!(fresh.apply(&block).await.expect("honest").is_some());
        if let Some(sum) = seen.get(&format!("{:?}", fresh.durable().0)) {
            assert_eq!(fresh.fingerprint(), *sum, "at {:?}", fresh.durable());
            compared += 1;
        }
    }
    let covered: NamedVector = node.durable().0.into_iter().collect();
    oracle
        .state(&covered)
        .check(&node)
        .expect("what the dots say");
    println!(
        "{} events, {} published, {compared} compared",
        oracle.dots().count(),
        seen.len()
    );
    assert!(compared > 20);
}
