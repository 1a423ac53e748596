//! Watchers of posts. What changed is marked, not queued: a slow watcher gets the newest state.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::engine::post::{Post, PostNumber};
use crate::ids::PostId;

/// No more watchers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} watchers are the limit")]
pub struct TooManyWatchers {
    pub max: usize,
}

/// What one watcher has not seen yet. Bounded by the posts that it watches.
#[derive(Default)]
struct Inbox {
    marked: Mutex<BTreeSet<PostNumber>>,
    news: Notify,
}

#[derive(Default)]
struct State {
    by_post: HashMap<PostNumber, Vec<Weak<Inbox>>>,
    watchers: usize,
}

pub struct Watchers {
    max: usize,
    state: Mutex<State>,
}

impl Watchers {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            state: Mutex::default(),
        }
    }

    /// A place for one more, which is given back when its watch is dropped.
    fn admit(&self) -> Result<(), TooManyWatchers> {
        let mut state = self.state.lock();
        if state.watchers >= self.max {
            return Err(TooManyWatchers { max: self.max });
        }
        state.watchers += 1;
        Ok(())
    }

    /// These posts have durable changes.
    pub(super) fn mark(&self, posts: impl Iterator<Item = PostNumber>) {
        let posts: BTreeSet<PostNumber> = posts.collect();
        if posts.is_empty() {
            return;
        }
        let state = self.state.lock();
        for post in posts {
            let inboxes = state.by_post.get(&post).into_iter().flatten();
            for inbox in inboxes.filter_map(Weak::upgrade) {
                inbox.marked.lock().insert(post);
                inbox.news.notify_one();
            }
        }
    }
}

/// Follows posts, also ones that nobody ever wrote: those are held for as long. Ends when dropped.
pub struct Watch {
    engine: Arc<Engine>,
    posts: HashMap<PostNumber, Arc<Post>>,
    inbox: Arc<Inbox>,
}

impl Engine {
    /// Begins to follow posts. Changes that become durable from now on are marked.
    pub fn watch(self: &Arc<Self>, ids: &[PostId]) -> Result<Watch, TooManyWatchers> {
        self.watchers.admit()?;
        let mut watch = Watch {
            engine: self.clone(),
            posts: HashMap::new(),
            inbox: Arc::default(),
        };
        for id in ids {
            let post = self.directory.hold(id);
            watch.posts.insert(post.number, post);
        }
        let mut state = self.watchers.state.lock();
        for post in watch.posts.values() {
            let inboxes = state.by_post.entry(post.number).or_default();
            inboxes.push(Arc::downgrade(&watch.inbox));
            post.set_watched(true);
        }
        drop(state);
        Ok(watch)
    }
}

impl Watch {
    /// Waits until at least one post has news, and returns those that have, in the order of their names.
    pub async fn changed(&mut self) -> Vec<PostId> {
        loop {
            let marked = std::mem::take(&mut *self.inbox.marked.lock());
            if !marked.is_empty() {
                let ids = marked
                    .iter()
                    .filter_map(|number| Some(self.posts.get(number)?.id.clone()));
                let mut ids: Vec<PostId> = ids.collect();
                ids.sort();
                return ids;
            }
            self.inbox.news.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.engine.watchers.state.lock();
        state.watchers -= 1;
        for (number, post) in &self.posts {
            let Some(inboxes) = state.by_post.get_mut(number) else {
                continue;
            };
            inboxes.retain(|inbox| !std::ptr::eq(inbox.as_ptr(), Arc::as_ptr(&self.inbox)));
            if inboxes.is_empty() {
                state.by_post.remove(number);
                post.set_watched(false);
            }
        }
        drop(state);
        let posts = self.posts.drain().map(|(_, post)| post);
        posts.for_each(|post| self.engine.directory.release(post));
    }
}
