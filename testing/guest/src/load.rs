//! How fast is a switch between two of its ports? Loads that keep both ports' rings busy and cost less than what they
//! measure.
//!
//! Both are closed loops: a new frame is sent when one has been received, so that no ring overflows and every frame sent
//! is forwarded, not dropped. [`LightLoad`] recycles descriptors and never touches a payload: the least work a guest can
//! do. [`MacSwapLoad`] does what a forwarding program does: it reads and writes each frame's addresses, rewrites each
//! descriptor, and hands received buffers to the transmit ring without a copy.

use std::time::{Duration, Instant};

use crate::guest::Pair;
use crate::memory::Block;
use crate::ring::Descriptor;
use crate::tx::Refusal;
use crate::{Guest, GuestError, NetHeader};

/// Turns between two looks at the clock.
const TURNS_PER_CLOCK: u32 = 256;
/// After so long without any frame, those that have not come are taken for lost. Longer than a switch may be kept from
/// its CPU by something else.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// What a load has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Frames received, at both ends.
    pub frames: u64,
    /// Their bytes, without virtio headers.
    pub bytes: u64,
    /// Frames that the switch took and did not deliver. The load sends new ones for them.
    pub lost: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// A load on a pair of ports.
pub trait Load {
    /// One look at every ring. Returns the frames received.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense.
    fn turn(&mut self) -> Result<u64, GuestError>;

    /// Bytes of each frame, without the virtio header.
    fn frame_bytes(&self) -> usize;

    /// Sends a new frame for each that is lost. Returns how many.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense.
    fn replace_lost(&mut self) -> Result<u64, GuestError>;

    /// Runs for about `time`.
    ///
    /// # Errors
    /// [`GuestError::BrokenRing`] if the switch wrote nonsense.
    fn run(&mut self, time: Duration) -> Result<LoadReport, GuestError> {
        let start = Instant::now();
        let mut report = LoadReport::default();
        let mut last_progress = Duration::ZERO;
        while report.elapsed < time {
            let before = report.frames;
            for _ in 0..TURNS_PER_CLOCK {
                report.frames += self.turn()?;
            }
            report.elapsed = start.elapsed();
            if report.frames > before {
                last_progress = report.elapsed;
            } else if report.elapsed - last_progress > PATIENCE {
                report.lost += self.replace_lost()?;
                last_progress = report.elapsed;
            }
        }
        report.bytes = report.frames * self.frame_bytes() as u64;
        Ok(report)
    }
}

pub(crate) fn broken(ring: &'static str) -> impl Fn(String) -> GuestError {
    move |what| GuestError::BrokenRing { ring, queue: 0, what }
}

/// What makes the frames of a [`LightLoad`] different from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flows {
    /// Nothing: the frame as it was given, never touched.
    One,
    /// So many connections, one after the other: the ports of an untagged IPv4 frame with TCP or UDP.
    Connections(u32),
    /// So many pairs of stations, one after the other: the last two bytes of both MAC addresses.
    Stations(u32),
}

/// Values of a field before the next one changes, for connections.
const PORTS: u32 = 1000;
/// The first port number.
const FIRST_PORT: u32 = 1024;
/// Where an untagged IPv4 frame without options has its ports.
const PORTS_AT: usize = 34;

impl Flows {
    /// How many.
    pub fn count(self) -> u32 {
        match self {
            Flows::One => 1,
            Flows::Connections(count) | Flows::Stations(count) => count,
        }
    }

    /// Source and destination port of connection `flow`.
    pub fn ports(flow: u32) -> [u16; 2] {
        [FIRST_PORT + flow % PORTS, FIRST_PORT + flow / PORTS].map(|port| port as u16)
    }

    /// Stations on each side, for so many pairs.
    pub fn stations(pairs: u32) -> u32 {
        let root = pairs.isqrt();
        if root * root < pairs { root + 1 } else { root }
    }

    /// Writes what makes the frame at `frame` of `block` one of `flow`.
    #[inline]
    fn stamp(self, flow: u32, block: &Block, frame: usize) {
        match self {
            Flows::One => {}
            Flows::Connections(_) => {
                let [source, destination] = Self::ports(flow).map(u16::to_be_bytes);
                let ports = block.at::<[[u8; 2]; 2]>(frame + PORTS_AT);
                // SAFETY: `at` checked the bounds; bytes have no alignment; the buffer is the guest's, outside the ring.
                unsafe { ports.write([source, destination]) };
            }
            Flows::Stations(count) => {
                let side = Self::stations(count);
                let station = |number: u32| (number as u16).to_be_bytes();
                let [destination, source] = [4, 10].map(|at| block.at::<[u8; 2]>(frame + at));
                // SAFETY: as above.
                unsafe {
                    destination.write(station(flow % side));
                    source.write(station(flow / side));
                }
            }
        }
    }
}

/// One frame, again and again, from one guest to another, by queue pair 0. See the module.
#[derive(Debug)]
pub struct LightLoad<'a> {
    from: &'a mut Pair,
    to: &'a mut Pair,
    frame_bytes: usize,
    header_bytes: usize,
    flows: Flows,
    /// The flow of the next frame.
    flow: u32,
    /// Where the frame behind each transmit descriptor lies in its guest's buffers.
    frames: Vec<usize>,
    /// Frames that may be on their way at once.
    window: u64,
    /// Frames that may be sent now.
    credit: u64,
    /// Bytes of a frame whose rest has not been seen yet.
    partial: u64,
}

impl<'a> LightLoad<'a> {
    /// Fills the ring of `from` with `frame`; as many as the ring of `to` can hold.
    ///
    /// # Errors
    /// [`GuestError::FrameTooLong`] if not even one fits.
    pub fn new(
        from: &'a mut Guest,
        to: &'a mut Guest,
        header: &NetHeader,
        frame: &[u8],
    ) -> Result<Self, GuestError> {
        let header_bytes = to.features().header_bytes();
        let sent_header = &header.encode()[..from.features().header_bytes()];
        let (from, to) = (&mut from.pairs[0], &mut to.pairs[0]);
        let receivable = to.rx.frames_of(header_bytes + frame.len());
        let mut window = 0;
        while window < receivable {
            match from.tx.push(sent_header, frame) {
                Ok(()) => window += 1,
                Err(Refusal::Full) => break,
                Err(Refusal::TooLong) => break,
                Err(Refusal::Broken(what)) => return Err(broken("transmit")(what)),
            }
        }
        if window == 0 {
            return Err(GuestError::FrameTooLong { bytes: frame.len() });
        }
        for ring in [&mut from.tx.ring, &mut to.rx.ring] {
            ring.disarm();
        }
        from.tx.ring.publish();
        let frames = from.tx.buffers_by_head().map(|at| at + sent_header.len()).collect();
        Ok(Self {
            from,
            to,
            frame_bytes: frame.len(),
            header_bytes,
            flows: Flows::One,
            flow: 0,
            frames,
            window,
            credit: 0,
            partial: 0,
        })
    }

    /// Makes each frame from the next one on another of `flows`, beginning with number `first`.
    #[must_use]
    pub fn with_flows(mut self, flows: Flows, first: u32) -> Self {
        self.flows = flows;
        self.flow = first % flows.count();
        self
    }

    /// Makes the next frames of the next flows. Their lines are asked for before the first is written: the switch has
    /// them, and one after the other they would take longer than the switch takes for a frame.
    fn send_stamped(&mut self, frames: u64) {
        const AT_ONCE: usize = 32;
        let tx = &mut self.from.tx;
        let mut heads = [0; AT_ONCE];
        let mut left = frames as usize;
        while left > 0 {
            let now = left.min(AT_ONCE);
            for head in &mut heads[..now] {
                *head = tx.ring.take_used().head;
                tx.buffers.will_write(self.frames[*head as usize & (self.frames.len() - 1)]);
            }
            for head in &heads[..now] {
                let frame = self.frames[*head as usize & (self.frames.len() - 1)];
                self.flows.stamp(self.flow, &tx.buffers, frame);
                self.flow = if self.flow + 1 < self.flows.count() { self.flow + 1 } else { 0 };
                tx.ring.offer(*head);
            }
            left -= now;
        }
    }

    /// The flow of the next frame.
    pub fn flow(&self) -> u32 {
        self.flow
    }

    /// Frames that are on their way at once.
    pub fn window(&self) -> u64 {
        self.window
    }
}

impl Load for LightLoad<'_> {
    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        let rx = &mut self.to.rx.ring;
        let ready = rx.ready().map_err(broken("receive"))?;
        for _ in 0..ready {
            let used = rx.take_used();
            self.partial += u64::from(used.len);
            rx.offer(used.head);
        }
        let mut frames = 0;
        if ready > 0 {
            rx.publish();
            // All frames are alike: their bytes tell their number, without a look at a header.
            let whole = (self.frame_bytes + self.header_bytes) as u64;
            frames = self.partial / whole;
            self.partial %= whole;
            self.credit += frames;
        }
        if self.credit > 0 {
            let tx = &mut self.from.tx.ring;
            let ready = u64::from(tx.ready().map_err(broken("transmit"))?);
            let now = ready.min(self.credit);
            if self.flows == Flows::One {
                for _ in 0..now {
                    let head = tx.take_used().head;
                    tx.offer(head);
                }
            } else {
                self.send_stamped(now);
            }
            if now > 0 {
                self.credit -= now;
                self.from.tx.ring.publish();
            }
        }
        Ok(frames)
    }

    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    fn replace_lost(&mut self) -> Result<u64, GuestError> {
        let taken = u64::from(self.from.tx.ring.ready().map_err(broken("transmit"))?);
        let lost = taken.saturating_sub(self.credit);
        self.credit += lost;
        self.partial = 0;
        Ok(lost)
    }
}

impl Drop for LightLoad<'_> {
    fn drop(&mut self) {
        // What the switch has not taken yet is given back by later sends.
        let _broken_ring = self.from.tx.reclaim();
    }
}

/// A buffer that travels between the rings of one guest.
#[derive(Debug, Clone, Copy, Default)]
struct Buffer {
    guest: u64,
    /// In the guest's block of receive or of transmit buffers.
    offset: usize,
    from_tx: bool,
}

/// One guest that sends back whatever it receives.
#[derive(Debug)]
struct Reflector<'a> {
    pair: &'a mut Pair,
    header_bytes: usize,
    /// The buffer behind each receive descriptor.
    receiving: Vec<Buffer>,
    /// The buffer behind each transmit descriptor.
    sending: Vec<Buffer>,
    spare: Vec<Buffer>,
    next_descriptor: u16,
}

impl<'a> Reflector<'a> {
    fn new(guest: &'a mut Guest) -> Self {
        let header_bytes = guest.features().header_bytes();
        let pair = &mut guest.pairs[0];
        let bytes = pair.rx.shape.buffer_bytes;
        let buffers = |block: &Block, from_tx| -> Vec<Buffer> {
            (0..pair.rx.ring.size() as usize)
                .map(|index| Buffer { guest: block.guest(index * bytes), offset: index * bytes, from_tx })
                .collect()
        };
        let receiving = buffers(&pair.rx.buffers, false);
        let spare = buffers(&pair.tx.buffers, true);
        for ring in [&mut pair.rx.ring, &mut pair.tx.ring] {
            ring.disarm();
        }
        Self {
            sending: vec![Buffer::default(); receiving.len()],
            pair,
            header_bytes,
            receiving,
            spare,
            next_descriptor: 0,
        }
    }

    /// Sends `frame` from a spare buffer.
    fn inject(&mut self, header: &[u8], frame: &[u8]) -> bool {
        let Some(buffer) = self.spare.pop() else { return false };
        let block = if buffer.from_tx { &self.pair.tx.buffers } else { &self.pair.rx.buffers };
        block.write(buffer.offset, header);
        block.write(buffer.offset + header.len(), frame);
        self.send(buffer, (header.len() + frame.len()) as u32);
        true
    }

    #[inline]
    fn send(&mut self, buffer: Buffer, len: u32) {
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) & (self.pair.tx.ring.size() - 1);
        self.sending[head as usize] = buffer;
        self.pair
            .tx
            .ring
            .write_descriptor(head, Descriptor { address: buffer.guest, len, flags: 0, next: 0 });
        self.pair.tx.ring.offer(head);
    }

    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        for _ in 0..self.pair.tx.ring.ready().map_err(broken("transmit"))? {
            let head = self.pair.tx.ring.take_used().head as usize & (self.sending.len() - 1);
            self.spare.push(self.sending[head]);
        }
        let ready = self.pair.rx.ring.ready().map_err(broken("receive"))?;
        let room = self.pair.tx.ring.size() - self.pair.tx.ring.outstanding();
        let now = ready.min(room).min(self.spare.len() as u16);
        for _ in 0..now {
            self.reflect();
        }
        if now > 0 {
            self.pair.rx.ring.publish();
            self.pair.tx.ring.publish();
        }
        Ok(now.into())
    }

    #[inline]
    fn reflect(&mut self) {
        let used = self.pair.rx.ring.take_used();
        let slot = used.head as usize & (self.receiving.len() - 1);
        let Some(fresh) = self.spare.pop() else { return };
        let received = std::mem::replace(&mut self.receiving[slot], fresh);
        let bytes = self.pair.rx.shape.buffer_bytes as u32;
        self.pair.rx.ring.write_descriptor(
            slot as u16,
            Descriptor { address: fresh.guest, len: bytes, flags: Descriptor::WRITE, next: 0 },
        );
        self.pair.rx.ring.offer(slot as u16);
        let block = if received.from_tx { &self.pair.tx.buffers } else { &self.pair.rx.buffers };
        swap_addresses(block, received.offset, self.header_bytes);
        self.send(received, used.len.min(bytes));
    }
}

/// Clears the virtio header and swaps the two Ethernet addresses behind it.
#[inline]
fn swap_addresses(block: &Block, offset: usize, header_bytes: usize) {
    type Addresses = [[u8; 6]; 2];
    let addresses = block.at::<Addresses>(offset + header_bytes);
    let header = block.at::<[u8; 10]>(offset);
    // SAFETY: `at` checked the bounds; arrays of bytes have no alignment; the buffer is the guest's, between the rings.
    unsafe {
        header.write([0; 10]);
        let [destination, source] = addresses.read();
        addresses.write([source, destination]);
    }
}

/// A window of frames that two guests send to and fro, by queue pair 0. See the module.
#[derive(Debug)]
pub struct MacSwapLoad<'a> {
    sides: [Reflector<'a>; 2],
    header: [u8; NetHeader::MAX_BYTES],
    frame: Vec<u8>,
    window: u64,
}

impl<'a> MacSwapLoad<'a> {
    /// Sends as many copies of `frame` from `first` to `second` as a ring holds. The guests must be fresh: nothing sent
    /// before by [`Guest::send`] may be on its way, and the rings are the load's from here on.
    ///
    /// # Errors
    /// [`GuestError::FrameTooLong`] if the frame does not fit into one buffer.
    pub fn new(first: &'a mut Guest, second: &'a mut Guest, frame: &[u8]) -> Result<Self, GuestError> {
        let sides = [Reflector::new(first), Reflector::new(second)];
        if sides.iter().any(|side| side.header_bytes + frame.len() > side.pair.rx.shape.buffer_bytes) {
            return Err(GuestError::FrameTooLong { bytes: frame.len() });
        }
        let window = sides.iter().map(|side| u64::from(side.pair.rx.ring.size())).min().unwrap_or(0);
        let header = NetHeader::default().encode();
        let mut load = Self { sides, header, frame: frame.to_vec(), window };
        load.inject(window);
        Ok(load)
    }

    fn inject(&mut self, frames: u64) -> u64 {
        let first = &mut self.sides[0];
        let header = &self.header[..first.header_bytes];
        let sent = (0..frames).take_while(|_| first.inject(header, &self.frame)).count() as u64;
        first.pair.tx.ring.publish();
        sent
    }
}

impl Load for MacSwapLoad<'_> {
    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        let [first, second] = &mut self.sides;
        Ok(first.turn()? + second.turn()?)
    }

    fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    fn replace_lost(&mut self) -> Result<u64, GuestError> {
        // Nothing moves: what is not in a ring any more is lost.
        let kept: u64 = self.sides.iter().map(|side| u64::from(side.pair.tx.ring.outstanding())).sum();
        Ok(self.inject(self.window.saturating_sub(kept)))
    }
}
