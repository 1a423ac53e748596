//! What this build is, and which formats it reads and writes.

use std::sync::LazyLock;

use crate::versions;

/// The answer to `--version`, after the name.
pub static TEXT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}; formats: log {}, block {}, token {}, checkpoint {}; protocol {} to {})",
        env!("CARGO_PKG_VERSION"),
        env!("LIKEWISE_COMMIT"),
        versions::LOG_FORMAT,
        versions::BLOCK_FORMAT,
        versions::TOKEN_FORMAT,
        versions::CHECKPOINT_FORMAT,
        versions::PROTOCOL_MIN,
        versions::PROTOCOL_MAX,
    )
});
