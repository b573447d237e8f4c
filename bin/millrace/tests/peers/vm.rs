//! A stock Linux guest in QEMU: its own virtio driver, its own TCP, on our vhost-user port, with a kernel pod as its peer.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::MutexGuard;
use std::time::Duration;

use lab::{Card, CardRole, Netns, Vm, VmSpec, ping, require, vm_ready};

use crate::switch::{MadeBy, PATIENCE, Switch, alone, mac, pod, tap, vhost_user};

const POD: u32 = 1;
const GUEST: u32 = 2;
const POD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 3, 1);
const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 3, 2);
/// Bits of `/sys/bus/virtio/devices/*/features`, lowest first: CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4,
/// HOST_TSO6, MRG_RXBUF (virtio 1.2 §5.1.3).
const OFFLOADS: [usize; 7] = [0, 1, 7, 8, 11, 12, 15];
/// Where the pod sends to the guest, and the guest to the pod.
const DOWN_PORT: u16 = 7001;
const UP_PORT: u16 = 7002;

/// What is transferred: the lines 1 to this number, which the guest makes with `seq`.
const LINES: u32 = 700_000;

fn lines() -> Vec<u8> {
    let mut text = String::new();
    for line in 1..=LINES {
        let _ = writeln!(text, "{line}");
    }
    text.into_bytes()
}

/// A guest and a pod on one switch, both with their addresses.
struct Scene {
    switch: Switch,
    pod: Netns,
    guest: Vm,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// `None`, with the reason said, if `test` cannot run here. The guest runs `script` when it has its address.
    fn set(test: &str, made_by: MadeBy, script: &str) -> Option<Scene> {
        if !require(test, vm_ready()) {
            return None;
        }
        let (alone, pod) = (alone(), pod(test)?);
        let mut switch = Switch::start();
        let socket = switch.socket("vm");
        let role = if made_by == MadeBy::Switch { CardRole::Connect } else { CardRole::Listen };
        let card = Card { socket: socket.clone(), role, mac: mac(GUEST), queues: 1 };
        switch.apply(vec![tap(POD, &pod), vhost_user(GUEST, &socket, made_by)]);
        pod.ip("link set eth0 up").unwrap();
        pod.ip(&format!("addr add {POD_ADDRESS}/24 dev eth0")).unwrap();
        let script = format!(
            "ip link set eth0 up; ip addr add {GUEST_ADDRESS}/24 dev eth0\n\
             echo \"guest: features $(cat /sys/bus/virtio/devices/virtio*/features)\"\n\
             echo guest: ready\n{script}\n"
        );
        let guest = Vm::boot(&VmSpec { script, memory_mib: 256, cards: vec![card] }).unwrap();
        Some(Scene { switch, pod, guest, _alone: alone })
    }

    fn wait_for(&mut self, text: &str) {
        self.guest.wait_for(text, PATIENCE).unwrap();
    }

    /// Waits until the pod gets an answer from the guest.
    fn wait_for_ping(&mut self) {
        let Self { switch, pod, .. } = self;
        switch.wait_until("the guest answers the pod", |_| {
            ping(pod, GUEST_ADDRESS, 1, Duration::from_secs(1)).unwrap().lost() == 0
        });
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.pod.run(|| TcpListener::bind(SocketAddrV4::new(POD_ADDRESS, port))).unwrap()
    }

    /// The mean length of the frames that come in by `port` while `work` is done.
    fn mean_frame_bytes(&mut self, port: u32, work: impl FnOnce(&mut Self)) -> u64 {
        let before = self.switch.counters(port);
        work(self);
        let after = self.switch.counters(port);
        (after.rx_bytes - before.rx_bytes) / (after.rx_frames - before.rx_frames).max(1)
    }

    /// The driver's feature bits, lowest first.
    fn features(&self) -> Vec<bool> {
        let console = self.guest.console();
        let line =
            console.lines().find_map(|line| line.trim().strip_prefix("guest: features ")).unwrap_or("");
        line.chars().map(|bit| bit == '1').collect()
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_linux_guest_pings_a_pod_and_moves_large_segments_both_ways() {
    let test = "a_linux_guest_pings_a_pod_and_moves_large_segments_both_ways";
    let script = format!(
        "ping -c 3 {POD_ADDRESS} && echo guest: pinged\n\
         [ \"$(nc {POD_ADDRESS} {DOWN_PORT} </dev/null | md5sum)\" = \"$(seq {LINES} | md5sum)\" ] && echo guest: received\n\
         seq {LINES} > /lines; nc {POD_ADDRESS} {UP_PORT} -e cat /lines\n\
         sleep 1000"
    );
    let Some(mut scene) = Scene::set(test, MadeBy::Switch, &script) else { return };
    let (down, up) = (scene.listen(DOWN_PORT), scene.listen(UP_PORT));
    scene.wait_for("guest: pinged");
    let features = scene.features();
    for bit in OFFLOADS {
        assert!(features.get(bit) == Some(&true), "feature {bit} is not negotiated: {features:?}");
    }
    let sent = scene.mean_frame_bytes(POD, |scene| {
        accept(&down).write_all(&lines()).unwrap();
        scene.wait_for("guest: received");
    });
    let mut received = Vec::new();
    let got = scene.mean_frame_bytes(GUEST, |_| {
        accept(&up).read_to_end(&mut received).unwrap();
    });
    assert!(received == lines(), "{} bytes of the guest arrived damaged", received.len());
    assert!(sent > 1514 && got > 1514, "the mean frames have {sent} and {got} bytes: they were cut");
    scene.switch.assert_balance();
}

#[test]
fn a_linux_guest_and_its_connections_survive_a_killed_switch() {
    let test = "a_linux_guest_and_its_connections_survive_a_killed_switch";
    let script = format!(
        "[ \"$(nc {POD_ADDRESS} {DOWN_PORT} </dev/null | md5sum)\" = \"$(seq {LINES} | md5sum)\" ] && echo guest: received\n\
         sleep 1000"
    );
    let Some(mut scene) = Scene::set(test, MadeBy::Switch, &script) else { return };
    let listener = scene.listen(DOWN_PORT);
    scene.wait_for("guest: ready");
    let mut stream = accept(&listener);
    let sent = lines();
    let (first, rest) = sent.split_at(sent.len() / 2);
    stream.write_all(first).unwrap();
    scene.switch.kill_and_restart();
    scene.wait_for_ping();
    stream.write_all(rest).unwrap();
    drop(stream);
    // The same connection: TCP has sent again what the kill cost, and nothing else was lost or damaged.
    scene.wait_for("guest: received");
    for _ in 0..3 {
        scene.switch.kill_and_restart();
        scene.wait_for_ping();
    }
    scene.switch.assert_balance();
}

#[test]
fn a_linux_guest_that_makes_the_socket_is_found_again_by_every_switch() {
    let test = "a_linux_guest_that_makes_the_socket_is_found_again_by_every_switch";
    let Some(mut scene) = Scene::set(test, MadeBy::Peer, "sleep 1000") else { return };
    scene.wait_for("guest: ready");
    scene.wait_for_ping();
    for _ in 0..3 {
        scene.switch.kill_and_restart();
        scene.wait_for_ping();
    }
    scene.switch.assert_balance();
}
