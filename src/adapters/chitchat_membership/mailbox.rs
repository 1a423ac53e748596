//! A bounded queue in which the newest win: what is full loses its oldest.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// See the module. For one reader.
pub struct Mailbox<T> {
    /// Guards the letters and whether more may come.
    content: Mutex<Content<T>>,
    arrived: Notify,
    max: usize,
}

struct Content<T> {
    letters: VecDeque<T>,
    is_closed: bool,
}

impl<T> Mailbox<T> {
    pub fn new(max: usize) -> Self {
        let content = Content {
            letters: VecDeque::new(),
            is_closed: false,
        };
        Self {
            content: Mutex::new(content),
            arrived: Notify::new(),
            max,
        }
    }

    /// Never waits. Returns what had to go for it, or the letter itself where the mailbox is closed.
    pub fn put(&self, letter: T) -> Option<T> {
        let mut content = self.content.lock();
        if content.is_closed {
            return Some(letter);
        }
        let lost = (content.letters.len() >= self.max)
            .then(|| content.letters.pop_front())
            .flatten();
        content.letters.push_back(letter);
        drop(content);
        self.arrived.notify_one();
        lost
    }

    /// The oldest letter; none once the mailbox is closed and empty. Dropping the future loses nothing.
    pub async fn next(&self) -> Option<T> {
        loop {
            {
                let mut content = self.content.lock();
                if let Some(letter) = content.letters.pop_front() {
                    return Some(letter);
                }
                if content.is_closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    pub fn close(&self) {
        self.content.lock().is_closed = true;
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_mailbox_loses_its_oldest() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), None);
        assert_eq!(mailbox.put(3), Some(1));
        assert_eq!(mailbox.next().await, Some(2));
        mailbox.close();
        assert_eq!(mailbox.put(4), Some(4));
        assert_eq!(mailbox.next().await, Some(3));
        assert_eq!(mailbox.next().await, None);
    }
}
