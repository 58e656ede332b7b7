//! The binary `reef`.

use std::process::ExitCode;

fn main() -> ExitCode {
    onprem::main(std::convert::identity)
}
