//! Watchers that hardly read what they are sent.

use std::time::Duration;

use super::World;
use crate::simulator::workload::post_name;

/// Between two looks at what was sent.
const SLOWNESS: Duration = Duration::from_millis(700);
const WATCHERS: usize = 2;

/// Some watch all posts of a node for this long.
pub fn watch_slowly(world: &mut World, number: usize, span: Duration, posts: usize) {
    let region = world.machine(number).name();
    for _ in 0..WATCHERS {
        world.add_caller(move |mut caller| async move {
            let posts = (0..posts).map(post_name).collect();
            let watching = async {
                let Ok(mut stream) = caller.watch(region, posts).await else {
                    return;
                };
                while let Ok(Some(_)) = stream.message().await {
                    tokio::time::sleep(SLOWNESS).await;
                }
            };
            // Whoever watches may be cut off; it matters to nobody.
            let _ = tokio::time::timeout(span, watching).await;
        });
    }
}
