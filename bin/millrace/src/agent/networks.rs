//! Which networks does the file define now? Or the directory, whose files each have a part of the whole.
//!
//! Files are looked at, not subscribed to: a mounted ConfigMap changes by a symbolic link two directories up, which no
//! single inotify watch sees.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::{FileError, MAX_FILE_BYTES, Networks};

/// What is wrong with the file as it is now, if anything. Shared with who reports it.
pub(crate) type FileProblem = Arc<Mutex<Option<String>>>;

/// The networks file, or a directory of them.
pub(crate) struct NetworksFile {
    path: PathBuf,
    /// The name of the node that this is.
    node: String,
    seen: Vec<Stamp>,
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

/// Changes with a file.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The files at `path`: itself, or what a directory has of them, by name.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_yaml =
        |path: &PathBuf| path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.retain(is_yaml);
    files.sort();
    Ok(files)
}

/// What the files at `path` look like from outside; those that cannot be looked at are left out.
fn stamps(path: &Path) -> Vec<Stamp> {
    let stamp = |file: PathBuf| std::fs::metadata(&file).ok().map(|metadata| Stamp::of(file, &metadata));
    files(path).unwrap_or_default().into_iter().filter_map(stamp).collect()
}

impl NetworksFile {
    /// The file or directory at `path`, not read yet, for the node of that name.
    pub(crate) fn new(path: PathBuf, node: String) -> Self {
        Self { path, node, seen: Vec::new(), problem: FileProblem::default() }
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
        // Before they are read: a file that changes meanwhile is read again.
        self.seen = stamps(&self.path);
        let texts = files(&self.path)?.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(Networks::parse_all(&texts, &self.node)?)
    }

    /// The networks, if the file changed since it was read and is legal. A file that is not is reported once.
    pub(crate) fn changed(&mut self) -> Option<Networks> {
        let now = stamps(&self.path);
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
        self.seen.clear();
        self.set_problem(Some(error.to_string()));
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    // One byte more than is legal, so that the reader of the text refuses it.
    std::fs::File::open(file)?.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks_file(path: PathBuf) -> NetworksFile {
        NetworksFile::new(path, "a".to_owned())
    }

    #[test]
    fn load_when_it_is_a_directory_reads_its_files_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("nodes.yaml", "nodes: [{name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}]");
        write("red.yml", "networks: [{name: red, topology: layer2, vni: 7}]");
        write("notes.txt", "not YAML: [");
        let mut file = networks_file(dir.path().into());
        let networks = file.load().unwrap();
        assert_eq!((networks.names().count(), networks.underlay().unwrap().own().number()), (1, 1));
        assert!(file.changed().is_none());
        write("blue.yaml", "networks: [{name: blue}]");
        assert_eq!(file.changed().unwrap().names().count(), 2);
        std::fs::remove_file(dir.path().join("blue.yaml")).unwrap();
        assert_eq!(file.changed().unwrap().names().count(), 1);
        std::fs::remove_file(dir.path().join("nodes.yaml")).unwrap();
        assert!(file.changed().is_none());
        assert!(file.error().lock().unwrap().as_ref().unwrap().contains("not among the nodes"));
    }

    #[test]
    fn changed_when_the_file_is_replaced_gives_its_networks_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks.yaml");
        std::fs::write(&path, "networks: [{name: a}]").unwrap();
        let mut file = networks_file(path.clone());
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
        let mut file = networks_file(path.clone());
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
    fn load_when_the_file_is_no_text_or_missing_tells_why() {
        let dir = tempfile::tempdir().unwrap();
        assert!(networks_file(dir.path().join("none.yaml")).load().is_err());
        assert!(networks_file(dir.path().join("none")).load().is_err());
        let path = dir.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(networks_file(path).load().is_err());
    }
}
