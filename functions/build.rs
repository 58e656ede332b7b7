//! The build script of each Lambda function. Links it to a fixed address, see ARCHITECTURE.md, *Decisions*: some 30,000
//! addresses then stand in the program as they are, instead of being written into 120 pages of memory at each start.

fn main() {
    println!("cargo::rerun-if-changed=../build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
