//! QEMU's own frontend, with the one guest that starts in a second: the boot ROM of its network card, which has a real
//! virtio driver and asks for an address as long as nobody gives it one.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use frame::Burst;
use lab::{program, require};
use ports::Device;
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};

use super::support::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x51];

/// A machine without disks. Killed with the test, however that ends.
struct Qemu(Child);

impl Qemu {
    fn start(socket: &Path, server: bool) -> Self {
        let role = if server { "server=on,wait=off" } else { "reconnect=1" };
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-nodefaults"])
            .args(["-display", "none", "-machine", "q35,memory-backend=mem"])
            .args(["-object", "memory-backend-memfd,id=mem,size=64M,share=on"])
            .args(["-chardev", &format!("socket,id=vu,path={},{role}", socket.display())])
            .args(["-netdev", "vhost-user,id=net,chardev=vu"])
            .args(["-device", &format!("virtio-net-pci,netdev=net,mac={mac},bootindex=0")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The guest's search for an address arrives, and it has buffers for an answer.
fn guest_speaks(device: &mut Device) {
    let from_client_to_server = [0, 68, 0, 67];
    let mut burst = Burst::new();
    let mut heard = false;
    wait_for("a DHCP request", || {
        device.rx[0].poll(&mut burst, &mut |burst| {
            for frame in 0..burst.len() {
                let head = burst.head(frame);
                assert_eq!(head[6..12], MAC);
                heard |= head.get(34..38) == Some(&from_client_to_server);
            }
        });
        heard
    });
    assert!(send_frame(device, 0, &[0xff; 60]));
    let link = device.handle.link();
    assert!(link.up && link.detail.contains("1 queue pair, 1 memory region 64 MiB"), "{}", link.detail);
}

fn guest_boots(test: &str, role: Option<Role>) {
    if !require(test, program("qemu-system-x86_64")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vu.sock");
    let spec = create_spec(&path);
    let role = role.unwrap_or(spec.role);
    let spec = VhostUserSpec { role, ..spec };
    let control = VhostUserControl::start().unwrap();
    let mut device = control.open(spec.clone()).unwrap();
    let guest = Qemu::start(&path, role == Role::Connect);
    guest_speaks(&mut device);
    // The switch goes and comes back; the guest goes on.
    drop(device);
    let mut device = control.open(spec).unwrap();
    guest_speaks(&mut device);
    // The guest is killed, and the next one comes.
    drop(guest);
    wait_for("the link to be down", || !device.handle.link().up);
    if role == Role::Connect {
        std::fs::remove_file(&path).unwrap();
    }
    let _next = Qemu::start(&path, role == Role::Connect);
    guest_speaks(&mut device);
}

#[test]
fn qemu_guest_boots_when_the_switch_makes_the_socket() {
    guest_boots("qemu_guest_boots_when_the_switch_makes_the_socket", None);
}

#[test]
fn qemu_guest_boots_when_qemu_makes_the_socket() {
    guest_boots("qemu_guest_boots_when_qemu_makes_the_socket", Some(Role::Connect));
}
