//! Errors in words: what happened, and what was behind it.

use std::error::Error;
use std::iter::successors;

/// What is behind an error, the nearest first.
pub fn behind<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(error.source(), |cause| (*cause).source())
}

/// The error with all that is behind it, outermost first. A cause that the text before it told already
/// is not told again: many libraries print their source themselves.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in behind(error) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What is behind all the others, such as the operating system's word. The error itself where nothing
/// is behind it.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    behind(error).last().unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("tcp connect error: {0}")]
        Repeats(#[source] io::Error),
        #[error("transport error")]
        Silent(#[source] Box<Outer>),
    }

    #[test]
    fn a_cause_is_told_once() {
        let refused = || io::Error::from_raw_os_error(111);
        let error = Outer::Silent(Box::new(Outer::Repeats(refused())));
        let expected = format!("transport error: tcp connect error: {}", refused());
        assert_eq!(told(&error), expected);
        assert_eq!(innermost(&error).to_string(), refused().to_string());
        assert_eq!(told(&refused()), refused().to_string());
    }
}
