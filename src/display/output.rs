//! The one way to the standard output, for whatever a command has to say.
//!
//! Each text is one write, so that a reader who stops within it (`| head`) has it all the same.

use std::fmt::Display;
use std::io::{self, Write};

/// Why a text was not written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Whoever read has gone: a reason to end, and nothing to complain of.
    #[error("nobody reads the standard output")]
    Closed,
    #[error("cannot write to the standard output")]
    Failed(#[source] io::Error),
}

/// Writes a line.
pub fn line(text: impl Display) -> Result<(), OutputError> {
    raw(&format!("{text}\n"))
}

/// Writes lines; none are no text at all.
pub fn lines(lines: &[String]) -> Result<(), OutputError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    raw(&text)
}

/// Writes the text as it is.
pub fn raw(text: &str) -> Result<(), OutputError> {
    write(&mut io::stdout().lock(), text)
}

fn write(out: &mut impl Write, text: &str) -> Result<(), OutputError> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Failed(error),
    })
}

/// Says what went wrong on the standard error stream. Where that fails too, nobody is left to tell.
pub fn complain(text: impl Display) {
    drop(
        io::stderr()
            .lock()
            .write_all(format!("{text}\n").as_bytes()),
    );
}

/// Writes the text on the standard error stream as it is. Where that fails, nobody is watching.
pub fn aside(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(stderr.write_all(text.as_bytes()));
}

/// Whether a command ended because nobody reads what it says.
pub fn is_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OutputError::Closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure_to_write() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        assert!(write(&mut writer, "heard").is_ok());
        drop(reader);
        let error = write(&mut writer, "not heard").expect_err("nobody reads");
        assert!(is_closed(&error.into()));
    }
}
