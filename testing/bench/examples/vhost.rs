//! dev
use clap::Parser;
#[derive(Parser)]
struct A { #[command(flatten)] a: bench::vhost::VhostArgs }
fn main() -> anyhow::Result<()> { bench::vhost::run(&A::parse().a) }
