//! What does one vhost-user port look like, as the user asks for it?

use std::path::PathBuf;

use wire::MacAddr;

use super::VhostUserError;

/// The most queue pairs a port can have: SET_VRING_KICK carries the ring's index in eight bits.
pub const MAX_QUEUE_PAIRS: u16 = 128;

/// The longest socket path: `sun_path` holds 108 bytes with the final zero (unix(7)).
pub(super) const MAX_PATH_BYTES: usize = 107;

/// One vhost-user port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostUserSpec {
    /// The socket that frontend and switch meet at, 107 bytes at most.
    pub socket_path: PathBuf,
    /// Which side makes the socket.
    pub role: Role,
    /// Queue pairs offered, 1 to [`MAX_QUEUE_PAIRS`]. The frontend may use fewer.
    pub queue_pairs: u16,
    /// The address that the device's configuration space shows; `None` leaves it to the frontend.
    pub mac: Option<MacAddr>,
    /// The largest IP packet, shown in the configuration space; 0 shows none.
    pub mtu_bytes: u16,
}

/// Which side makes the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The switch creates the socket, and removes it when the port is closed. The owner and mode are set before anybody
    /// can connect.
    Create {
        /// Owner of the socket file.
        uid: u32,
        /// Group of the socket file.
        gid: u32,
        /// Permission bits, as in 0o660. Write permission is what a program needs to connect.
        mode: u32,
    },
    /// The program creates the socket; the switch connects, and reconnects for ever.
    Connect,
}

impl VhostUserSpec {
    /// # Errors
    /// [`VhostUserError::PathLength`] and [`VhostUserError::QueuePairs`].
    pub(super) fn validate(&self) -> Result<(), VhostUserError> {
        let bytes = self.socket_path.as_os_str().len();
        if bytes == 0 || bytes > MAX_PATH_BYTES {
            return Err(VhostUserError::PathLength { path: self.socket_path.clone(), bytes });
        }
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(VhostUserError::QueuePairs(self.queue_pairs));
        }
        Ok(())
    }
}
