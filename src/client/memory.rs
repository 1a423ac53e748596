//! What a client has seen: the token of the newest answer. Each answer's token covers the one that was
//! sent with its request, so the newest covers all before it.

use parking_lot::Mutex;

pub struct Memory {
    /// Guards the token alone; held for a copy.
    token: Mutex<String>,
}

impl Memory {
    pub fn beginning_with(token: String) -> Self {
        Self {
            token: Mutex::new(token),
        }
    }

    pub fn token(&self) -> String {
        self.token.lock().clone()
    }

    /// An answer without a token says nothing.
    pub fn saw(&self, token: String) {
        if !token.is_empty() {
            *self.token.lock() = token;
        }
    }
}
