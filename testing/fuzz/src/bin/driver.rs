//! The coverage-guided driver of one target, whose name stands in FUZZ_TARGET: libFuzzer's main and options.
#![no_main]

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = fuzz::target(&name) else {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET must be one of {}", names.join(", "));
    };
    target.run
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| RUN(bytes));
