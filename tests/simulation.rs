//! Whole clusters on a simulated network, disk and clock, in one thread.

#[path = "../simulations/simulator/mod.rs"]
mod simulator;

use std::time::Duration;

use likewise::ids::Region;
use likewise::wire::v1::LikeRequest;
use simulator::world::World;
use simulator::world::machine::{MachineOptions, Seen};

fn region(name: &str) -> Region {
    Region::new(name).expect("a valid name")
}

fn world(seed: u64, names: &[&str]) -> World {
    let regions: Vec<Region> = names.iter().map(|name| region(name)).collect();
    let mut world = World::new(seed, Some(std::fs::File::create("/tmp/trace.txt").unwrap()));
    for own in &regions {
        let others = regions.iter().filter(|other| *other != own);
        let others: Vec<Region> = others.cloned().collect();
        world.add_machine(own, &others, MachineOptions::default());
    }
    world
}

/// Whether all nodes run and hold the same.
fn are_equal(world: &World) -> bool {
    let seen: Option<Vec<Seen>> = world.machines().iter().map(|machine| machine.seen()).collect();
    let Some(seen) = seen else {
        return false;
    };
    let published = seen.iter().map(|seen| seen.engine.board().newest());
    let mut shown = published.map(|shown| (shown.vector.clone(), shown.sums.total()));
    let first = shown.next().expect("a node");
    shown.all(|other| other == first)
}

#[test]
fn regions_that_were_cut_off_and_crashed_become_equal() {
    let names = ["ap", "eu", "us"];
    let mut world = world(7, &names);
    for (number, name) in names.into_iter().enumerate() {
        world.add_caller(move |mut caller| async move {
            for like in 0..200u64 {
                let like = LikeRequest {
                    post: format!("post-{}", like % 5),
                    user: format!("user-{}", like * 3 + number as u64),
                    request_id: format!("{name}-{like}"),
                    ..LikeRequest::default()
                };
                while caller.like(name, like.clone()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    world.run_for(Duration::from_secs(1)).expect("runs");
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        world.cut(from, to);
    }
    world.run_for(Duration::from_secs(2)).expect("runs");
    world.crash(1);
    world.run_for(Duration::from_secs(1)).expect("runs");
    world.restart(1);
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        world.heal(from, to);
    }
    let likers = |world: &World| {
        let seen = world.machine(0).seen();
        seen.map_or(0, |seen| seen.engine.likers())
    };
    let all = |world: &World| are_equal(world) && likers(world) == 600;
    let is_equal = world.run_until(Duration::from_secs(60), all).expect("runs");
    assert!(is_equal, "{} likers", likers(&world));
}
