//! The binary `likewise`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    likewise::cli::main()
}
