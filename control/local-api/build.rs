//! Turns proto/*.proto into Rust, without a protoc binary.

#[cfg(feature = "grpc")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/switch.proto", "proto/agent.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(true).compile_fds(files)?;
    Ok(())
}

#[cfg(not(feature = "grpc"))]
fn main() {}
