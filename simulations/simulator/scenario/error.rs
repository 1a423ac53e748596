//! What is wrong with a scenario file, where, and what would be right.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("{}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}:{line}: {problem}", path.display())]
    Wrong {
        path: PathBuf,
        /// From 1.
        line: usize,
        problem: String,
    },
}

/// A problem, and the bytes of the text that it is about.
#[derive(Debug)]
pub(super) struct Mistake {
    pub span: Range<usize>,
    pub problem: String,
}

impl Mistake {
    pub fn at(span: Range<usize>, problem: impl Into<String>) -> Self {
        Self {
            span,
            problem: problem.into(),
        }
    }

    pub fn in_text(self, path: &Path, text: &str) -> ScenarioError {
        let before = &text.as_bytes()[..self.span.start.min(text.len())];
        ScenarioError::Wrong {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            problem: self.problem,
        }
    }
}
