//! What the state file does when it is shared, broken, of another age, or on a full disk.

use std::path::Path;

use redb::ReadableDatabase;

use super::world::{World, request, sriov_request, vdpa_file_request, vduse_request};
use crate::store::{Op, Snapshot, Store, StoreError};

fn open(path: &Path) -> Result<(Store, Snapshot), StoreError> {
    Store::open(path)
}

#[test]
fn open_when_another_agent_has_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    let first = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err(), StoreError::InUse(path.clone()));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn open_when_the_file_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    for content in [&b"not a database"[..], &[0; 8192]] {
        std::fs::write(&path, content).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
}

#[test]
fn open_when_a_byte_is_flipped_anywhere_gives_an_error_or_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    let world = World::new();
    let made = world.agent().unwrap().add(&request(0)).unwrap();
    let (mut store, _) = open(&path).unwrap();
    store.commit(&[Op::PutAttachment(Box::new(made.clone())), Op::PortCursor(1)]).unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let broken = dir.path().join("broken.redb");
    // Every byte of the header, and a sample of the pages.
    let used: Vec<_> = (0..good.len()).filter(|at| *at < 320 || good[*at] != 0).collect();
    for at in used.into_iter().enumerate().filter(|(n, at)| *at < 64 || n % 41 == 0).map(|(_, at)| at) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        std::fs::write(&broken, &bad).unwrap();
        if let Ok((_, snapshot)) = open(&broken) {
            assert!(snapshot.attachments.iter().all(|found| found.id == made.id), "byte {at}");
        }
    }
}

#[test]
fn open_when_the_schema_is_newer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    drop(open(&path).unwrap());
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("schema", 99).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(open(&path).unwrap_err(), StoreError::Schema { path, found: 99 });
}

fn schema(path: &Path) -> u64 {
    let database = redb::Database::open(path).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
    meta.get("schema").unwrap().unwrap().value()
}

#[test]
fn commit_when_a_kind_is_new_says_so_and_an_older_agent_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.redb");
    let agent = World::new().agent().unwrap();
    let [tap, vduse, sriov, vdpa] = [request(0), vduse_request(1), sriov_request(2), vdpa_file_request(3)]
        .map(|ask| agent.add(&ask).unwrap());
    for (attachment, expected) in [(&tap, 1), (&vduse, 2), (&sriov, 3), (&vdpa, 3), (&vduse, 3)] {
        let (mut store, _) = open(&path).unwrap();
        store.commit(&[Op::PutAttachment(Box::new(attachment.clone()))]).unwrap();
        drop(store);
        assert_eq!(schema(&path), expected, "{}", attachment.kind);
    }
    let stored = open(&path).unwrap().1.attachments;
    assert!([tap, vduse, sriov, vdpa].iter().all(|attachment| stored.contains(attachment)), "{stored:?}");
}

#[test]
fn open_when_an_older_agent_wrote_it_reads_its_attachments() {
    let made = World::new().agent().unwrap().add(&request(0)).unwrap();
    let mut json = serde_json::to_value(&made).unwrap();
    for field in ["kind_reason", "vdpa", "card"] {
        assert!(json.as_object_mut().unwrap().remove(field).is_some());
    }
    let read: crate::Attachment = serde_json::from_value(json).unwrap();
    assert_eq!(read, crate::Attachment { kind_reason: String::new(), ..made });
}

#[test]
fn commit_when_the_disk_is_full_changes_nothing_and_works_again_later() {
    let world = World::new();
    let agent = world.agent().unwrap();
    world.set_fuse(0, super::world::Blow::FailBefore);
    // The first step of a commit is a write; the disk of the fakes fails as a full one.
    let error = agent.set_networks(&model::Networks::parse("networks: [{name: new}]").unwrap()).unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
    assert!(agent.desired().network(&"new".parse().unwrap()).is_none());
    world.take_fuse();
    agent.set_networks(&model::Networks::parse("networks: [{name: new}]").unwrap()).unwrap();
    assert!(agent.desired().network(&"new".parse().unwrap()).is_some());
}
