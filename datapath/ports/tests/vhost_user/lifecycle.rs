//! From the socket's making to its removal, with everything that proper frontends do in between.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ports::Device;
use ports::vhost_user::{Role, VhostUserControl, VhostUserError, VhostUserSpec};

use super::support::*;

#[test]
fn socket_when_created_has_its_owner_and_mode_and_goes_with_the_handle() {
    let port = TestPort::with(|spec| match spec.role {
        Role::Create { uid, gid, .. } => {
            VhostUserSpec { role: Role::Create { uid, gid, mode: 0o622 }, ..spec }
        }
        Role::Connect => spec,
    });
    let metadata = std::fs::symlink_metadata(port.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o622);
    assert_eq!(metadata.uid(), rustix::process::getuid().as_raw());
    assert!(port.detail().starts_with("waiting for a program to connect to "), "{}", port.detail());
    let path = port.path();
    drop(port.device);
    assert!(!path.exists());
}

#[test]
fn socket_when_replaced_by_another_is_not_removed() {
    let port = TestPort::create();
    std::fs::remove_file(port.path()).unwrap();
    let _other = UnixListener::bind(port.path()).unwrap();
    let path = port.path();
    drop(port.device);
    assert!(path.exists());
}

#[test]
fn path_when_busy_stale_or_no_socket_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let control = VhostUserControl::start().unwrap();
    let path = directory.path().join("vu.sock");
    let spec = create_spec(&path);
    let live = UnixListener::bind(&path).unwrap();
    assert!(matches!(control.open(spec.clone()), Err(VhostUserError::Busy(busy)) if busy == path));
    // The file stays when its program is gone, and is of no use to anybody.
    drop(live);
    assert!(path.exists());
    drop(control.open(spec.clone()).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(control.open(spec.clone()), Err(VhostUserError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(control.open(spec), Err(VhostUserError::NotASocket(_))));
}

#[test]
fn spec_when_impossible_is_refused_in_words() {
    let control = VhostUserControl::start().unwrap();
    let long = std::path::PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
    let error = control.open(create_spec(&long)).unwrap_err().to_string();
    assert!(error.contains("has 108 bytes; 1 to 107 are possible"), "{error}");
    for queue_pairs in [0, 129] {
        let spec = VhostUserSpec { queue_pairs, ..create_spec("/tmp/never-made.sock".as_ref()) };
        assert!(matches!(control.open(spec), Err(VhostUserError::QueuePairs(_))));
    }
    let error = control.open(create_spec("/nonexistent/vu.sock".as_ref())).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/vu.sock"), "{error}");
}

#[test]
fn second_frontend_when_the_first_lives_is_closed() {
    let port = TestPort::create();
    let first = Frontend::connect(&port.path());
    assert_ne!(first.ask(GET_FEATURES), 0);
    assert!(Frontend::connect(&port.path()).is_cut_off());
    assert_ne!(first.ask(GET_FEATURES), 0);
    drop(first);
    // The end of the first is noticed before the next is judged.
    assert_ne!(Frontend::connect(&port.path()).ask(GET_FEATURES), 0);
}

#[test]
fn connecting_port_when_the_path_appears_late_finds_it_again_and_again() {
    let port = TestPort::with(|spec| VhostUserSpec { role: Role::Connect, ..spec });
    assert!(port.detail().starts_with("waiting for a program to create "), "{}", port.detail());
    for _ in 0..3 {
        let listener = UnixListener::bind(port.path()).unwrap();
        let mut frontend = Frontend::on(listener.accept().unwrap().0);
        frontend.start(1);
        port.wait_for_up();
        drop((frontend, listener));
        std::fs::remove_file(port.path()).unwrap();
        wait_for("the link to be down", || !port.device.handle.link().up);
    }
}

#[test]
fn frames_when_rings_run_pass_both_ways_on_each_pair() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(2);
    frontend.ask(GET_STATUS);
    for pair in 0..2 {
        frontend.transmit(pair, &[pair as u8 + 1; 100]);
        assert_eq!(poll_frame(&mut port.device, pair as usize), [pair as u8 + 1; 100]);
        assert!(!send_frame(&port.device, pair as usize, &[9; 200]), "no buffer was given yet");
        frontend.post(pair);
        assert!(send_frame(&port.device, pair as usize, &[9; 200]));
        assert_eq!(frontend.received(pair), [9; 200]);
    }
    let detail = port.detail();
    assert_eq!(detail, "connected: VERSION_1 MRG_RXBUF, 2 queue pairs, 1 memory region 1 MiB");
}

#[test]
fn transmit_queue_when_its_pair_is_not_used_sends_by_the_first() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    frontend.post(0);
    assert!(send_frame(&port.device, 1, &[5; 64]));
    assert_eq!(frontend.received(0), [5; 64]);
}

#[test]
fn ring_when_stopped_tells_its_base_and_runs_on_from_there() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    frontend.transmit(0, &[1; 60]);
    poll_frame(&mut port.device, 0);
    assert_eq!(frontend.stop_ring(1), 1);
    frontend.transmit(0, &[2; 60]);
    let mut burst = frame::Burst::new();
    port.device.rx[0].poll(&mut burst, &mut |_| panic!("the ring is stopped"));
    // A base of 0, as from a frontend that does not know of the frame before: it is not taken twice.
    frontend.request(SET_VRING_BASE, &state(1, 0), &[]);
    frontend.request(SET_VRING_KICK, &1u64.to_ne_bytes(), &[event().as_fd()]);
    assert_eq!(poll_frame(&mut port.device, 0), [2; 60]);
    assert_eq!(frontend.stop_ring(1), 2);
}

#[test]
fn ring_when_disabled_passes_nothing_to_the_guest() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    frontend.post(0);
    frontend.request(SET_VRING_ENABLE, &state(0, 0), &[]);
    wait_for("the link to be down", || !port.device.handle.link().up);
    assert!(!send_frame(&port.device, 0, &[5; 64]));
    frontend.request(SET_VRING_ENABLE, &state(0, 1), &[]);
    port.wait_for_up();
    assert!(send_frame(&port.device, 0, &[5; 64]));
}

#[test]
fn ring_when_the_frontend_knows_no_protocol_features_needs_no_enabling() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.request(SET_FEATURES, &FEATURE_VERSION_1.to_ne_bytes(), &[]);
    // Neither protocol features nor SET_VRING_ENABLE.
    for step in (4..Frontend::steps(1)).filter(|step| (step + 1) % 6 != 5 || *step == 4) {
        frontend.step(step);
    }
    port.wait_for_up();
}

#[test]
fn memory_when_exchanged_under_running_rings_is_followed() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    frontend.transmit(0, &[1; 60]);
    poll_frame(&mut port.device, 0);
    // Everything moves to another file; the guest goes on there.
    let mut bytes = vec![0; MEMORY_BYTES as usize];
    frontend.memory.read_exact_at(&mut bytes, 0).unwrap();
    frontend.memory = memfd(MEMORY_BYTES);
    frontend.memory.write_all_at(&bytes, 0).unwrap();
    frontend.set_memory();
    frontend.ask(GET_STATUS);
    frontend.transmit(0, &[2; 60]);
    assert_eq!(poll_frame(&mut port.device, 0), [2; 60]);
    // Without the region the ring stops; with it, it runs on.
    assert_eq!(frontend.ask(GET_MAX_MEM_SLOTS), 509);
    let memory = frontend.memory.try_clone().unwrap();
    assert_eq!(frontend.acknowledged(REM_MEM_REG, &single_region(), &[memory.as_fd()]), 0);
    assert!(port.detail().contains("0 memory regions 0 KiB; ring 0 stopped"), "{}", port.detail());
    assert_eq!(frontend.acknowledged(REM_MEM_REG, &single_region(), &[]), 1);
    frontend.transmit(0, &[3; 60]);
    assert_eq!(frontend.acknowledged(ADD_MEM_REG, &single_region(), &[memory.as_fd()]), 0);
    assert_eq!(poll_frame(&mut port.device, 0), [3; 60]);
}

#[test]
fn dirty_pages_when_logging_is_on_are_marked() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    let log = memfd(4096);
    let payload = [4096u64, 0].map(u64::to_ne_bytes).concat();
    frontend.request(SET_LOG_BASE, &payload, &[log.as_fd()]);
    assert_eq!(frontend.reply(SET_LOG_BASE), payload);
    frontend.post(0);
    assert!(send_frame(&port.device, 0, &[5; 64]));
    let marked = |page: u64| {
        let mut byte = [0];
        log.read_exact_at(&mut byte, page / 8).unwrap();
        byte[0] >> (page % 8) & 1 == 1
    };
    // Buffer 1 of ring 0 lies in the fifth page, its used ring in the third.
    let (buffer, used) = (GUEST_BASE / 4096 + 4, GUEST_BASE / 4096 + 2);
    assert!(!marked(buffer));
    let features = FEATURE_VERSION_1 | FEATURE_MRG_RXBUF | FEATURE_PROTOCOL | FEATURE_LOG_ALL;
    frontend.request(SET_FEATURES, &features.to_ne_bytes(), &[]);
    let mut logged = addresses(0);
    logged[4] = 1;
    logged[32..].copy_from_slice(&(GUEST_BASE + 0x2000).to_ne_bytes());
    frontend.request(SET_VRING_ADDR, &logged, &[]);
    frontend.ask(GET_STATUS);
    assert!(port.detail().contains("LOG_ALL"), "{}", port.detail());
    frontend.post(0);
    assert!(send_frame(&port.device, 0, &[5; 64]));
    assert!(marked(buffer) && marked(used));
    assert!(!marked(buffer + 1));
}

#[test]
fn guest_when_it_cannot_announce_itself_is_announced() {
    let mut port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    frontend.request(SEND_RARP, &[2, 0, 0, 0, 0, 5, 0, 0], &[]);
    let frame = poll_frame(&mut port.device, 0);
    assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 5, 0x80, 0x35]);
    assert_eq!(frame.len(), 60);
}

#[test]
fn configuration_space_when_asked_for_shows_the_spec() {
    let port = TestPort::with(|spec| VhostUserSpec { mac: Some(wire::MacAddr([2, 1, 2, 3, 4, 5])), ..spec });
    let frontend = Frontend::connect(&port.path());
    let mut request = [0u32, 12, 0].map(u32::to_ne_bytes).concat();
    request.extend([0; 12]);
    frontend.request(GET_CONFIG, &request, &[]);
    let expected = [2, 1, 2, 3, 4, 5, 1, 0, 2, 0, 0xdc, 5];
    assert_eq!(frontend.reply(GET_CONFIG)[12..], expected);
    // Behind the end there is nothing.
    request[..4].copy_from_slice(&250u32.to_ne_bytes());
    frontend.request(GET_CONFIG, &request, &[]);
    assert!(frontend.reply(GET_CONFIG).is_empty());
}

#[test]
fn device_when_reset_can_be_set_up_again() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    frontend.request(SET_STATUS, &15u64.to_ne_bytes(), &[]);
    assert_eq!(frontend.ask(GET_STATUS), 15);
    frontend.request(RESET_DEVICE, &[], &[]);
    assert_eq!(frontend.ask(GET_STATUS), 0);
    assert!(!port.device.handle.link().up);
    frontend.start(1);
    // Until its rings are enabled, what a guest sends is drained and dropped.
    port.wait_for_up();
    frontend.ask(GET_STATUS);
    frontend.transmit(0, &[4; 60]);
    assert_eq!(poll_frame(&mut port.device, 0), [4; 60]);
}

#[test]
fn sleeping_worker_when_the_guest_kicks_is_woken() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    let kick = event();
    frontend.stop_ring(1);
    frontend.request(SET_VRING_KICK, &1u64.to_ne_bytes(), &[kick.as_fd()]);
    frontend.ask(GET_STATUS);
    assert!(!port.device.rx[0].arm());
    let fd = port.device.rx[0].fd().expect("an attached ring can be waited for");
    assert_ne!(fd, kick.as_raw_fd());
    frontend.transmit(0, &[1; 60]);
    rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
    let mut set = ports::WaitSet::default();
    set.add(fd);
    set.wait(Some(std::time::Duration::from_secs(20))).unwrap();
    port.device.rx[0].disarm();
    assert_eq!(poll_frame(&mut port.device, 0), [1; 60]);
}

#[test]
fn waker_when_a_frontend_comes_and_goes_is_called() {
    let port = TestPort::create();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    port.device.handle.set_waker(Arc::new(count));
    let frontend = Frontend::connect(&port.path());
    frontend.ask(GET_FEATURES);
    wait_for("a wake-up", || calls.load(Ordering::Relaxed) > 0);
    let before = calls.load(Ordering::Relaxed);
    drop(frontend);
    wait_for("a wake-up", || calls.load(Ordering::Relaxed) > before);
}

/// One frame to the switch, and a buffer for one back if the ring has room.
fn give_and_take(frontend: &mut Frontend) {
    frontend.transmit(0, &[7; 900]);
    if frontend.avail(0).wrapping_sub(frontend.used(0)) < RING_SIZE {
        frontend.post(0);
    }
}

#[test]
fn memory_when_removed_and_added_under_load_is_never_touched_in_between() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    let Device { mut rx, tx, handle } = port.device;
    let stop = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut burst = frame::Burst::new();
            let mut taken = 0;
            while !stop.load(Ordering::Relaxed) {
                taken += forward(&mut *rx[0], &*tx[0], &mut burst).frames;
            }
            taken
        });
        for _ in 0..200 {
            give_and_take(&mut frontend);
            assert_eq!(frontend.acknowledged(REM_MEM_REG, &single_region(), &[]), 0);
            give_and_take(&mut frontend);
            assert_eq!(frontend.acknowledged(ADD_MEM_REG, &single_region(), &[frontend.memory.as_fd()]), 0);
            let sent = frontend.avail(1);
            wait_for("the frames to be taken", || frontend.used(1) == sent);
        }
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    });
    assert_eq!(taken, 400);
    assert!(handle.link().up, "{}", handle.link().detail);
}
