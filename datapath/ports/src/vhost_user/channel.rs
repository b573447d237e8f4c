//! How do messages come out of a non-blocking stream socket, whole and with their descriptors?
//!
//! A peer may send half a message and stop: the half stays here, and the thread serves others. A peer that does not
//! read its replies is not read from either, so that at most one turn's replies are ever kept for it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::message::{HEADER_BYTES, Header, MAX_FDS, MAX_PAYLOAD_BYTES, Message, Reply, Violation};

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChannelError {
    /// The peer closed its end.
    #[error("the program closed the connection")]
    Closed,
    /// The peer is no frontend that can be served.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The kernel's word on the socket.
    #[error("the connection failed: {0}")]
    Socket(Errno),
}

/// One connection's bytes.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    input: Box<[u8; HEADER_BYTES + MAX_PAYLOAD_BYTES]>,
    received: usize,
    /// The header of the message in `input`, once it is whole.
    header: Option<Header>,
    fds: Vec<OwnedFd>,
    output: Vec<u8>,
}

impl Channel {
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub(super) fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            input: Box::new([0; HEADER_BYTES + MAX_PAYLOAD_BYTES]),
            received: 0,
            header: None,
            fds: Vec::new(),
            output: Vec::new(),
        })
    }

    /// The next whole message, or `None` until more bytes come.
    pub(super) fn receive(&mut self) -> Result<Option<(Header, Message)>, ChannelError> {
        loop {
            let wanted = HEADER_BYTES + self.header.map_or(0, |header| header.payload_bytes);
            if self.received < wanted {
                if !self.fill(wanted)? {
                    return Ok(None);
                }
                continue;
            }
            let Some(header) = self.header.take() else {
                if let Some(bytes) = self.input.first_chunk() {
                    self.header = Some(Header::decode(bytes)?);
                }
                continue;
            };
            self.received = 0;
            let fds = std::mem::take(&mut self.fds);
            return Ok(Some((header, Message::decode(header, &self.input[HEADER_BYTES..wanted], fds)?)));
        }
    }

    /// Reads once, up to byte `wanted` of the message. False if there is nothing to read.
    fn fill(&mut self, wanted: usize) -> Result<bool, ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(&mut self.input[self.received..wanted])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let result = match recvmsg(&self.socket, &mut bytes, &mut ancillary, flags) {
            Ok(result) => result,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Socket(errno)),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if result.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Err(Violation::TooManyFds.into());
        }
        if result.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        self.received += result.bytes;
        Ok(true)
    }

    /// Sends `reply` as far as the socket takes it; the rest waits for [`Channel::flush`].
    pub(super) fn send(&mut self, request: u32, reply: &Reply) -> Result<(), ChannelError> {
        reply.encode(request, &mut self.output);
        self.flush()
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(ChannelError::Socket(errno)),
            }
        }
        Ok(())
    }

    /// True while replies wait for the peer to read.
    pub(super) fn is_clogged(&self) -> bool {
        !self.output.is_empty()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
