//! Does what a fuzzer once found stay found? Every file of every target's corpus, and random bytes.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The target's seeds and finds, in order of name.
fn files(target: &str) -> Vec<PathBuf> {
    let folder = corpus(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_corpus_file_passes_its_target() {
    for target in fuzz::TARGETS {
        let files = files(target.name);
        assert!(!files.is_empty(), "target {} has no corpus", target.name);
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let passed = std::panic::catch_unwind(|| (target.run)(&bytes)).is_ok();
            assert!(passed, "{} breaks its target: see above", file.display());
        }
    }
}

#[test]
fn every_corpus_folder_has_its_target() {
    for entry in std::fs::read_dir(corpus("")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(fuzz::target(name.to_str().unwrap()).is_some(), "no target {name:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_pass_every_target(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for target in fuzz::TARGETS {
            (target.run)(&bytes);
        }
    }

    #[test]
    fn damaged_corpus_files_pass_their_target(
        file: prop::sample::Index, at: prop::sample::Index, value: u8, keep: prop::sample::Index,
    ) {
        for target in fuzz::TARGETS {
            let files = files(target.name);
            let mut bytes = std::fs::read(&files[file.index(files.len())]).unwrap();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
                bytes.truncate(keep.index(bytes.len()) + 1);
            }
            (target.run)(&bytes);
        }
    }
}
