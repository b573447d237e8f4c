//! The CNI executable.
fn main() {}
