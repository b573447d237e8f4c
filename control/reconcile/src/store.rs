//! What survives the agent? Attachments, the networks they are in, and where the circles of numbers and addresses stand.
//!
//! One redb file. A change is on disk before its answer is given; a crash in the middle leaves the state before or after.
//! The file is locked: one agent per state directory.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use model::{AttachmentId, NetworkName, NetworkSpec, PortKind};
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::record::Attachment;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ATTACHMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("attachments");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const CURSORS: TableDefinition<'_, &str, &str> = TableDefinition::new("cursors");

/// The shape of the tables; grows with each change that an older agent could not read. The file has that of what is in it: a
/// node that uses nothing new can go back to an older Millrace.
const SCHEMA: u64 = 4;
/// The first shape with networks of several nodes.
const NODES_SCHEMA: u64 = 4;
/// The first shape.
const FIRST_SCHEMA: u64 = 1;

/// A network that has a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredNetwork {
    /// Its number in the switch, for as long as anything is in it.
    pub number: u32,
    /// As it was last defined.
    pub spec: NetworkSpec,
    /// The number of the port that stands for other nodes, if it is on several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_port: Option<u16>,
}

/// All that the store knows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The attachments.
    pub attachments: Vec<Attachment>,
    /// The networks that have a number.
    pub networks: Vec<StoredNetwork>,
    /// By "network subnet": the address given out last.
    pub cursors: BTreeMap<String, IpAddr>,
    /// The port number given out last.
    pub port_cursor: u16,
    /// The port number of the uplink.
    pub uplink_port: Option<u16>,
    /// That of the node itself.
    pub host_port: Option<u16>,
}

/// One part of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Keep this attachment, in place of an earlier version of it.
    PutAttachment(Box<Attachment>),
    /// Forget it.
    DeleteAttachment(AttachmentId),
    /// Keep this network, in place of an earlier version of it.
    PutNetwork(Box<StoredNetwork>),
    /// Forget it.
    DeleteNetwork(NetworkName),
    /// This address was given out last.
    Cursor(String, IpAddr),
    /// This port number was given out last.
    PortCursor(u16),
    /// The uplink has this port number.
    UplinkPort(u16),
    /// The node itself has this port number.
    HostPort(u16),
}

/// Why the state cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another agent has it open.
    #[error("{0} is in use by another agent: stop that one, or choose another --state-dir")]
    InUse(PathBuf),
    /// It is no state file, or a broken one.
    #[error(
        "{path} is damaged: {reason}. Restore it from a backup; or move it away and restart the node's pods, whose attachments it held"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer agent wrote it.
    #[error("{path} has schema {found}, this agent knows {SCHEMA}: run the newer Millrace that wrote it")]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// The system refuses to read or write it. Nothing was changed; asking again is safe.
    #[error("{path} cannot be written: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason, with the remedy where one is known.
        reason: String,
    },
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The open state.
pub struct Store {
    path: PathBuf,
    open: Opener,
    // None after an error of the disk, until it could be opened again.
    database: Option<Database>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the state file, or makes an empty one, and reads it.
    ///
    /// # Errors
    /// It is in use, damaged, of a newer schema, or the system refuses.
    pub fn open(path: &Path) -> Result<(Self, Snapshot), StoreError> {
        let file = path.to_owned();
        Self::open_with(path, Box::new(move || Database::create(&file)))
    }

    /// As [`Store::open`], with the database that `open` gives.
    pub(crate) fn open_with(path: &Path, open: Opener) -> Result<(Self, Snapshot), StoreError> {
        let mut store = Self { path: path.to_owned(), open, database: None };
        let snapshot = store.read()?;
        Ok((store, snapshot))
    }

    /// Makes a change durable: all of it, or none.
    ///
    /// # Errors
    /// The system refuses; nothing was changed.
    pub fn commit(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        let result = write(self.database()?, ops);
        if result.is_err() {
            // After an error redb refuses everything; opening again recovers the last state that was committed.
            self.database = None;
        }
        result.map_err(|error| self.failed(error))
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            self.database = Some(open_checked(&self.open).map_err(|error| self.not_opened(error))?);
        }
        // Just filled; the error is never made.
        self.database.as_ref().ok_or_else(|| self.failed(redb::Error::DatabaseAlreadyOpen))
    }

    fn read(&mut self) -> Result<Snapshot, StoreError> {
        let path = self.path.clone();
        let database = self.database()?;
        let result = create_tables(database).and_then(|()| read_tables(database));
        match result {
            Ok(Tables { schema, .. }) if schema > SCHEMA => Err(StoreError::Schema { path, found: schema }),
            Ok(tables) => tables.decode().map_err(|reason| StoreError::Damaged { path, reason }),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn not_opened(&self, error: DatabaseError) -> StoreError {
        match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(self.path.clone()),
            error => self.failed(error.into()),
        }
    }

    fn failed(&self, error: redb::Error) -> StoreError {
        use std::io::ErrorKind;
        let path = self.path.clone();
        match error {
            redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                StoreError::Damaged { path, reason: error.to_string() }
            }
            redb::Error::Io(error) => {
                let remedy = match error.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": make room on that file system",
                    ErrorKind::PermissionDenied => ": run the agent as the owner of the file",
                    _ => "",
                };
                StoreError::Io { path, reason: format!("{error}{remedy}") }
            }
            error @ redb::Error::PreviousIo => StoreError::Io { path, reason: error.to_string() },
            error => StoreError::Damaged { path, reason: error.to_string() },
        }
    }
}

/// Opens the database and verifies all its checksums: it is small, and what is read here is acted on for the node's life.
fn open_checked(open: &Opener) -> Result<Database, DatabaseError> {
    let corrupted = |reason: &str| DatabaseError::Storage(StorageError::Corrupted(reason.to_owned()));
    let checked = || {
        let mut database = open()?;
        if database.check_integrity()? { Ok(database) } else { Err(corrupted("its checksums do not fit")) }
    };
    // redb asserts on some damage that it could report; where panics unwind, they are reported here.
    catch_unwind(AssertUnwindSafe(checked)).unwrap_or_else(|_| Err(corrupted("the database asserts")))
}

/// The tables as they are.
struct Tables {
    schema: u64,
    port_cursor: u64,
    uplink_port: u64,
    host_port: u64,
    attachments: Vec<(String, Vec<u8>)>,
    networks: Vec<(String, Vec<u8>)>,
    cursors: Vec<(String, String)>,
}

impl Tables {
    fn decode(self) -> Result<Snapshot, String> {
        let cursor = |(key, text): (String, String)| match text.parse() {
            Ok(address) => Ok((key, address)),
            Err(error) => Err(format!("cursor {key}: {error}")),
        };
        Ok(Snapshot {
            attachments: decode_all("attachment", &self.attachments)?,
            networks: decode_all("network", &self.networks)?,
            cursors: self.cursors.into_iter().map(cursor).collect::<Result<_, _>>()?,
            port_cursor: self.port_cursor as u16,
            uplink_port: Some(self.uplink_port as u16).filter(|port| *port != 0),
            host_port: Some(self.host_port as u16).filter(|port| *port != 0),
        })
    }
}

fn decode_all<T: for<'de> Deserialize<'de>>(
    what: &str,
    rows: &[(String, Vec<u8>)],
) -> Result<Vec<T>, String> {
    let decode = |(key, bytes): &(String, Vec<u8>)| {
        serde_json::from_slice(bytes).map_err(|error| format!("{what} {key}: {error}"))
    };
    rows.iter().map(decode).collect()
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    let fresh = write.open_table(META)?.get("schema")?.is_none();
    if !fresh {
        write.abort()?;
        return Ok(());
    }
    write.open_table(META)?.insert("schema", FIRST_SCHEMA)?;
    write.open_table(ATTACHMENTS)?;
    write.open_table(NETWORKS)?;
    write.open_table(CURSORS)?;
    write.commit()?;
    Ok(())
}

fn read_tables(database: &Database) -> Result<Tables, redb::Error> {
    let read = database.begin_read()?;
    let meta = read.open_table(META)?;
    let number = |key: &str| Ok::<_, StorageError>(meta.get(key)?.map_or(0, |value| value.value()));
    let schema = number("schema")?;
    if schema > SCHEMA {
        let none = (Vec::new(), Vec::new(), Vec::new());
        return Ok(Tables {
            schema,
            port_cursor: 0,
            uplink_port: 0,
            host_port: 0,
            attachments: none.0,
            networks: none.1,
            cursors: none.2,
        });
    }
    let rows = |table: TableDefinition<'_, &str, &[u8]>| {
        let mut rows = Vec::new();
        for row in read.open_table(table)?.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_owned(), value.value().to_owned()));
        }
        Ok::<_, redb::Error>(rows)
    };
    let mut cursors = Vec::new();
    for row in read.open_table(CURSORS)?.iter()? {
        let (key, value) = row?;
        cursors.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(Tables {
        schema,
        port_cursor: number("port_cursor")?,
        uplink_port: number("uplink_port")?,
        host_port: number("host_port")?,
        attachments: rows(ATTACHMENTS)?,
        networks: rows(NETWORKS)?,
        cursors,
    })
}

fn write(database: &Database, ops: &[Op]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut attachments = write.open_table(ATTACHMENTS)?;
        let mut networks = write.open_table(NETWORKS)?;
        let mut cursors = write.open_table(CURSORS)?;
        for op in ops {
            match op {
                Op::PutAttachment(attachment) => {
                    attachments.insert(key(&attachment.id).as_str(), encode(attachment)?.as_slice())?;
                    raise_schema(&write, schema_of(attachment.kind))?;
                }
                Op::DeleteAttachment(id) => {
                    attachments.remove(key(id).as_str())?;
                }
                Op::PutNetwork(network) => {
                    networks.insert(network.spec.name.as_str(), encode(network)?.as_slice())?;
                    if !network.spec.topology.is_local() {
                        raise_schema(&write, NODES_SCHEMA)?;
                    }
                }
                Op::DeleteNetwork(name) => {
                    networks.remove(name.as_str())?;
                }
                Op::Cursor(key, address) => {
                    cursors.insert(key.as_str(), address.to_string().as_str())?;
                }
                Op::UplinkPort(port) => {
                    write.open_table(META)?.insert("uplink_port", u64::from(*port))?;
                }
                Op::HostPort(port) => {
                    write.open_table(META)?.insert("host_port", u64::from(*port))?;
                }
                Op::PortCursor(port) => {
                    write.open_table(META)?.insert("port_cursor", u64::from(*port))?;
                }
            }
        }
    }
    write.commit()?;
    Ok(())
}

/// The first schema that knows attachments of this kind.
fn schema_of(kind: PortKind) -> u64 {
    match kind {
        PortKind::Tap | PortKind::VhostUser => FIRST_SCHEMA,
        PortKind::Vduse | PortKind::VdpaVhost => 2,
        PortKind::Sriov | PortKind::Vdpa => 3,
    }
}

fn raise_schema(write: &WriteTransaction, schema: u64) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    let now = meta.get("schema")?.map_or(FIRST_SCHEMA, |now| now.value());
    if now < schema {
        meta.insert("schema", schema)?;
    }
    Ok(())
}

/// Interfaces have no slash in their names, so the key is unique.
fn key(id: &AttachmentId) -> String {
    format!("{}/{}", id.container, id.interface)
}

/// Paths that are not UTF-8 cannot be written as JSON; CNI's are.
fn encode(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| std::io::Error::other(error).into())
}
