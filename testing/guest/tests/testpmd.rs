//! Does the guest speak to a vhost-user backend that is not ours? dpdk-testpmd's `net_vhost` device sends every frame back.
#![allow(clippy::disallowed_methods, reason = "a test waits with deadlines")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guest::{Builder, Features, Guest, NetHeader, Notify, TxLayout};

const PATIENCE: Duration = Duration::from_secs(20);

/// A testpmd that sends back what it receives.
struct Testpmd(Child);

impl Testpmd {
    /// `options` of the `net_vhost` device; its socket is at `path`.
    fn start(path: &Path, options: &str) -> Self {
        Self::start_with_queues(path, options, 1)
    }

    fn start_with_queues(path: &Path, options: &str, pairs: u16) -> Self {
        let mut command = Command::new("dpdk-testpmd");
        command
            .args([
                "--no-huge",
                "-m",
                "256",
                "--no-pci",
                "--no-shconf",
                "--no-telemetry",
                "--lcores",
                "0@(0,1),1@(0,1)",
            ])
            .arg(format!("--vdev=net_vhost0,iface={},queues={pairs}{options}", path.display()))
            .args(["--", "--nb-cores=1", "--forward-mode=io", "--port-topology=loop", "--auto-start"])
            .args([format!("--rxq={pairs}"), format!("--txq={pairs}")])
            .args(["--no-lsc-interrupt", "--total-num-mbufs=4096", "--stats-period=3600"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

/// A place for a socket. None if `test` cannot run here.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place(test: &str) -> Option<Place> {
    if !lab::require(test, lab::program("dpdk-testpmd")) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("port");
    Some(Place { _folder: folder, path })
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// testpmd may lose what comes before both of its queues run: frames of another type until the first one is back.
fn greet(guest: &mut Guest) {
    let mut hello = frame(60, 0);
    hello[13] = 0xb6;
    let deadline = Instant::now() + PATIENCE;
    loop {
        guest.send(&hello).unwrap();
        if guest.recv(Duration::from_millis(100)).unwrap().is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "testpmd sends nothing back");
    }
}

/// The next frame that is not a late greeting.
fn recv(guest: &mut Guest) -> (Vec<u8>, NetHeader) {
    loop {
        let received = guest.recv(PATIENCE).unwrap().expect("an echo");
        if received.0[13] != 0xb6 {
            return received;
        }
    }
}

fn expect_echoes(guest: &mut Guest, lengths: &[usize]) {
    greet(guest);
    for (turn, len) in lengths.iter().cycle().take(600).enumerate() {
        let sent = frame(*len, turn as u8);
        guest.send(&sent).unwrap();
        let (received, _) = recv(guest);
        assert_eq!(received, sent, "turn {turn}");
    }
    assert!(guest.flush(PATIENCE).unwrap());
}

fn echo_with(test: &str, builder: Builder, lengths: &[usize]) {
    let Some(place) = place(test) else { return };
    let _testpmd = Testpmd::start(&place.path, "");
    let mut guest = builder.timeout(PATIENCE).connect(&place.path).unwrap();
    expect_echoes(&mut guest, lengths);
}

#[test]
fn echo_when_the_rings_are_plain_returns_every_frame() {
    echo_with(
        "echo_when_the_rings_are_plain_returns_every_frame",
        Guest::builder().features(Features::PLAIN),
        &[60, 64, 1000, 1514],
    );
}

#[test]
fn echo_when_the_rings_have_all_features_returns_every_frame() {
    let features = Features::RINGS | Features::IN_ORDER;
    echo_with(
        "echo_when_the_rings_have_all_features_returns_every_frame",
        Guest::builder().features(features).tx_layout(TxLayout::Scattered(200)),
        &[60, 1514, 300],
    );
}

#[test]
fn echo_when_frames_are_scattered_and_polled_returns_every_frame() {
    let builder = Guest::builder().features(Features::PLAIN | Features::MRG_RXBUF).notify(Notify::Poll);
    echo_with(
        "echo_when_frames_are_scattered_and_polled_returns_every_frame",
        builder.buffer_bytes(256).tx_layout(TxLayout::HeaderApart),
        &[60, 1514, 255],
    );
}

#[test]
fn echo_when_the_guest_listens_and_either_side_dies_goes_on() {
    let Some(place) = place("echo_when_the_guest_listens_and_either_side_dies_goes_on") else { return };
    let listener = Guest::builder().listen(&place.path).unwrap();
    let testpmd = Testpmd::start(&place.path, ",client=1");
    let mut guest = listener.accept(PATIENCE).unwrap();
    expect_echoes(&mut guest, &[60]);
    for _ in 0..3 {
        guest.abandon();
        guest.reconnect(PATIENCE).unwrap();
        expect_echoes(&mut guest, &[60]);
    }
    guest.disconnect().unwrap();
    drop(testpmd);
    let _testpmd = Testpmd::start(&place.path, ",client=1");
    guest.reconnect(PATIENCE).unwrap();
    expect_echoes(&mut guest, &[60]);
}

#[test]
fn echo_when_a_tcp_segment_is_large_returns_it_whole() {
    let Some(place) = place("echo_when_a_tcp_segment_is_large_returns_it_whole") else { return };
    let _testpmd = Testpmd::start(&place.path, ",tso=1");
    for mergeable in [Features::MRG_RXBUF, Features::empty()] {
        let features = Features::PLAIN | Features::INDIRECT_DESC | Features::OFFLOADS | mergeable;
        let mut guest = Guest::builder().features(features).timeout(PATIENCE).connect(&place.path).unwrap();
        assert!(guest.features().contains(Features::HOST_TSO4 | Features::GUEST_TSO4));
        greet(&mut guest);
        let sent = tcp_frame(16_000);
        let header = NetHeader::tcp_segments(NetHeader::GSO_TCPV4, 34, 1448);
        guest.send_with(&header, &sent).unwrap();
        let (mut received, _) = recv(&mut guest);
        // testpmd asks for no offload where it sends, so its device fills the checksum in.
        let checksum: [u8; 2] = received.splice(50..52, [0, 0]).collect::<Vec<_>>().try_into().unwrap();
        assert_ne!(checksum, [0, 0]);
        assert_eq!(received, sent);
        guest.disconnect().unwrap();
    }
}

#[test]
fn echo_when_there_are_two_queue_pairs_comes_back_on_the_same_pair() {
    let test = "echo_when_there_are_two_queue_pairs_comes_back_on_the_same_pair";
    let Some(place) = place(test) else { return };
    let _testpmd = Testpmd::start_with_queues(&place.path, "", 2);
    let builder = Guest::builder().queue_pairs(2).region_per_queue_pair(true).timeout(PATIENCE);
    let mut guest = builder.connect(&place.path).unwrap();
    assert!(guest.features().contains(Features::MQ));
    for pair in [0, 1] {
        let sent = frame(300, pair as u8);
        let deadline = Instant::now() + PATIENCE;
        let received = loop {
            guest.send_on(pair, &NetHeader::default(), &sent).unwrap();
            std::thread::yield_now();
            match guest.recv_on(pair).unwrap() {
                Some((received, _)) => break received,
                None => assert!(Instant::now() < deadline, "nothing comes back on pair {pair}"),
            }
            guest.flush(PATIENCE).unwrap();
        };
        assert_eq!(received, sent);
    }
}

fn tcp_frame(payload: u16) -> Vec<u8> {
    let mut frame = vec![0; 54 + payload as usize];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(40 + payload).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46] = 0x50;
    frame[47] = 0x10;
    frame
}
