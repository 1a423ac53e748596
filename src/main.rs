//! The binary `likewise`; everything is in the library.

use std::process::ExitCode;

use likewise::adapters::allocator::BySize;

#[global_allocator]
static ALLOCATOR: BySize = BySize;

fn main() -> ExitCode {
    likewise::cli::main()
}
