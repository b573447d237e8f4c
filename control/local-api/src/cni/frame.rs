//! How do plugin and agent talk? One request frame, one answer frame, then the connection is closed.
//!
//! ```text
//! frame   = version:u8 length:u32 payload            big endian; length is of the payload
//! request = n:u8 (key:str16 value:str16){n} stdin    str16 = length:u16 bytes; stdin is the rest
//! answer  = exit_code:u8 stdout                      stdout is the rest
//! ```
//!
//! Limits: a frame's payload is at most [`MAX_FRAME_BYTES`]; both sides refuse more before they read it.

use std::io::{self, Read};

/// The version byte of frames.
const FRAME_VERSION: u8 = 1;

/// The bytes in front of a payload.
pub const HEADER_BYTES: usize = 5;

/// The largest payload.
pub const MAX_FRAME_BYTES: usize = 2 << 20;

/// The largest configuration that is taken from the runtime. A GC of every pod of a large node is far below.
pub const MAX_STDIN_BYTES: usize = 1 << 20;

/// Variables in a request; the specification has six.
const MAX_VARIABLES: usize = 32;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side is of another release.
    #[error(
        "the other side speaks version {0} of the plugin protocol, this side {FRAME_VERSION}: install plugin and agent of one release"
    )]
    Version(u8),
    /// More than [`MAX_FRAME_BYTES`].
    #[error("a message of {0} bytes is longer than the {MAX_FRAME_BYTES} allowed")]
    TooLong(usize),
    /// The payload ends too early.
    #[error("a message ends in the middle of a field")]
    Truncated,
    /// A field that should be text is not UTF-8.
    #[error("a variable is not UTF-8")]
    NotText,
    /// More than 32 variables.
    #[error("a message with {0} variables, where {MAX_VARIABLES} are allowed")]
    TooManyVariables(usize),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// What the plugin was called with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The CNI_* variables.
    pub env: Vec<(String, String)>,
    /// The configuration.
    pub stdin: Vec<u8>,
}

/// What the plugin is to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// 0: success.
    pub exit_code: u8,
    /// The result or the error.
    pub stdout: Vec<u8>,
}

/// The payload's length, of the header in front of it.
///
/// # Errors
/// Another version, or longer than allowed.
pub fn payload_len(header: [u8; HEADER_BYTES]) -> Result<usize, FrameError> {
    let [version, length @ ..] = header;
    if version != FRAME_VERSION {
        return Err(FrameError::Version(version));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME_BYTES { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Reads one frame; gives its payload.
///
/// # Errors
/// The stream ends or fails, or what comes is no frame ([`FrameError`] within).
pub fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)?;
    let mut payload = vec![0; payload_len(header)?];
    from.read_exact(&mut payload)?;
    Ok(payload)
}

impl Request {
    /// The frame, header included. Variables beyond what a frame can carry are left out: the agent misses them by name.
    pub fn encode(&self) -> Vec<u8> {
        let fits = |text: &str| u16::try_from(text.len()).is_ok();
        let env: Vec<_> =
            self.env.iter().filter(|(key, value)| fits(key) && fits(value)).take(MAX_VARIABLES).collect();
        frame(|payload| {
            payload.push(env.len() as u8);
            for text in env.iter().flat_map(|(key, value)| [key, value]) {
                payload.extend_from_slice(&(text.len() as u16).to_be_bytes());
                payload.extend_from_slice(text.as_bytes());
            }
            payload.extend_from_slice(&self.stdin);
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It is no request.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (&count, mut rest) = payload.split_first().ok_or(FrameError::Truncated)?;
        if usize::from(count) > MAX_VARIABLES {
            return Err(FrameError::TooManyVariables(count.into()));
        }
        let mut env = Vec::with_capacity(count.into());
        for _ in 0..count {
            env.push((take_text(&mut rest)?, take_text(&mut rest)?));
        }
        Ok(Self { env, stdin: rest.to_vec() })
    }

    /// The value of a variable; `None` where it is missing or empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        let found = self.env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

impl Answer {
    /// The frame, header included.
    pub fn encode(&self) -> Vec<u8> {
        frame(|payload| {
            payload.push(self.exit_code);
            payload.extend_from_slice(&self.stdout);
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It is empty.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (&exit_code, stdout) = payload.split_first().ok_or(FrameError::Truncated)?;
        Ok(Self { exit_code, stdout: stdout.to_vec() })
    }
}

fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[0] = FRAME_VERSION;
    write(&mut bytes);
    let length = (bytes.len() - HEADER_BYTES) as u32;
    bytes[1..HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    bytes
}

fn take_text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let (length, tail) = rest.split_first_chunk::<2>().ok_or(FrameError::Truncated)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, tail) = tail.split_at_checked(length).ok_or(FrameError::Truncated)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).map_err(|_| FrameError::NotText)
}
