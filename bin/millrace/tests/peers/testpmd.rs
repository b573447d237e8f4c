//! DPDK's testpmd with two vhost-user ports on the switch. It sends back what it gets, so its first frames go round, from
//! one port through the switch to the other, for as long as nobody loses them.

use std::path::Path;

use lab::{Process, program, require};

use crate::switch::{MadeBy, PATIENCE, Switch, alone, vhost_user};

/// Frames from each port that are proof enough: each of testpmd's first ones has gone round many times.
const ENOUGH: u64 = 2_000;

fn testpmd(folder: &Path, sockets: [&Path; 2], made_by: MadeBy) -> Process {
    let server = u8::from(made_by == MadeBy::Peer);
    let device = |n: usize| {
        format!("--vdev=net_virtio_user{n},path={},server={server},queues=1", sockets[n].display())
    };
    let prefix = folder.file_name().unwrap_or_default().to_string_lossy();
    let environment = [
        format!("--file-prefix={prefix}"),
        "--lcores=0@0,1@1".into(),
        "--no-pci".into(),
        "--no-huge".into(),
        "--iova-mode=va".into(),
        "-m128".into(),
        device(0),
        device(1),
        "--".into(),
    ];
    let application =
        ["--nb-cores=1", "--forward-mode=io", "--total-num-mbufs=4096", "--tx-first", "--auto-start"];
    let runtime = format!("XDG_RUNTIME_DIR={}", folder.display());
    let directory = format!("RUNTIME_DIRECTORY={}", folder.display());
    let args = [runtime, directory, "dpdk-testpmd".into()];
    let args = args.into_iter().chain(environment).chain(application.map(str::to_owned));
    Process::start("env", args, &folder.join("testpmd.log")).unwrap()
}

fn frames_go_round(test: &str, made_by: MadeBy) {
    if !require(test, program("dpdk-testpmd")) {
        return;
    }
    let _alone = alone();
    let mut switch = Switch::start();
    let sockets = [switch.socket("a"), switch.socket("b")];
    let ports = [(1, &sockets[0]), (2, &sockets[1])].map(|(number, path)| vhost_user(number, path, made_by));
    switch.apply(ports.into());
    let folder = tempfile::TempDir::with_prefix("testpmd-").unwrap();
    let mut testpmd = testpmd(folder.path(), [&sockets[0], &sockets[1]], made_by);
    let go_round = |switch: &mut Switch| [1, 2].iter().all(|port| switch.counters(*port).rx_frames > ENOUGH);
    testpmd.wait_until("frames go round", PATIENCE, || go_round(&mut switch)).unwrap();
    drop(testpmd);
    switch.wait_until("the ports notice", |switch| [1, 2].iter().all(|port| !switch.port(*port).link_up));
    switch.assert_balance();
}

#[test]
fn testpmd_passes_frames_through_the_switch_that_makes_the_sockets() {
    frames_go_round("testpmd_passes_frames_through_the_switch_that_makes_the_sockets", MadeBy::Switch);
}

#[test]
fn testpmd_passes_frames_through_the_switch_that_connects_to_it() {
    frames_go_round("testpmd_passes_frames_through_the_switch_that_connects_to_it", MadeBy::Peer);
}
