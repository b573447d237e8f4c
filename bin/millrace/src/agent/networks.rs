//! Which networks does the file define now?
//!
//! The file is looked at, not subscribed to: a mounted ConfigMap changes by a symbolic link two directories up, which no
//! single inotify watch sees.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use model::{FileError, MAX_FILE_BYTES, Networks};

/// What is wrong with the file as it is now, if anything. Shared with who reports it.
pub(crate) type FileProblem = Arc<Mutex<Option<String>>>;

/// The networks file.
pub(crate) struct NetworksFile {
    path: PathBuf,
    seen: Option<Stamp>,
    problem: FileProblem,
}

/// Why the file defines no networks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// It cannot be read.
    #[error("{0}: write a networks file, or name it with --networks")]
    Io(#[from] std::io::Error),
    /// It says nothing legal.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Changes with the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl NetworksFile {
    /// The file at `path`, not read yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, problem: FileProblem::default() }
    }

    /// What is wrong with the file as it is now.
    pub(crate) fn error(&self) -> FileProblem {
        Arc::clone(&self.problem)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It defines no networks; those that were defined before stay.
    pub(crate) fn load(&mut self) -> Result<Networks, LoadError> {
        let file = std::fs::File::open(&self.path)?;
        self.seen = Some(Stamp::of(&file.metadata()?));
        let mut text = String::new();
        // One byte more than is legal, so that the reader of the text refuses it.
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
        Ok(Networks::parse(&text)?)
    }

    /// The networks, if the file changed since it was read and is legal. A file that is not is reported once.
    pub(crate) fn changed(&mut self) -> Option<Networks> {
        let now = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if now == self.seen {
            return None;
        }
        self.seen = now;
        let loaded = self.load();
        let problem = loaded.as_ref().err().map(|error| format!("{}: {error}", self.path.display()));
        if let Some(problem) = &problem {
            tracing::error!(%problem, "the networks stay as they were");
        }
        self.set_problem(problem);
        loaded.ok()
    }

    /// The networks could not be taken over: the file is read again with the next look.
    pub(crate) fn retry(&mut self, error: &dyn std::error::Error) {
        self.seen = None;
        self.set_problem(Some(error.to_string()));
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_when_the_file_is_replaced_gives_its_networks_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks.yaml");
        std::fs::write(&path, "networks: [{name: a}]").unwrap();
        let mut file = NetworksFile::new(path.clone());
        assert_eq!(file.load().unwrap().names().count(), 1);
        assert!(file.changed().is_none());
        std::fs::write(dir.path().join("new"), "networks: [{name: a}, {name: b}]").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(file.changed().unwrap().names().count(), 2);
        assert!(file.changed().is_none());
    }

    #[test]
    fn changed_when_the_file_is_wrong_or_gone_keeps_what_was_and_tells_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks.yaml");
        std::fs::write(&path, "networks: []").unwrap();
        let mut file = NetworksFile::new(path.clone());
        file.load().unwrap();
        std::fs::write(&path, "networks: [{name: a, mtu: 1}]").unwrap();
        assert!(file.changed().is_none());
        assert!(file.error().lock().unwrap().as_ref().unwrap().contains("choose 68 to"));
        std::fs::remove_file(&path).unwrap();
        assert!(file.changed().is_none());
        assert!(file.error().lock().unwrap().as_ref().unwrap().contains("--networks"));
        std::fs::write(&path, "networks: [{name: a}]").unwrap();
        assert!(file.changed().is_some());
        assert!(file.error().lock().unwrap().is_none());
    }

    #[test]
    fn load_when_the_file_is_no_text_or_a_directory_tells_why() {
        let dir = tempfile::tempdir().unwrap();
        assert!(NetworksFile::new(dir.path().into()).load().is_err());
        assert!(NetworksFile::new(dir.path().join("none")).load().is_err());
        let path = dir.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(NetworksFile::new(path).load().is_err());
    }
}
