//! What happens to a frontend that breaks the rules? It is cut off with a reason that names the rule, all that it gave is
//! released, and nobody else notices.

use std::os::fd::AsFd;

use super::support::*;

/// Sends `bytes` with `fds` eventfds as the first message of a connection; why the port ended it.
fn reason_for(bytes: &[u8], fds: usize) -> String {
    let port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    let events: Vec<_> = (0..fds).map(|_| event()).collect();
    let borrowed: Vec<_> = events.iter().map(AsFd::as_fd).collect();
    // The switch may cut the connection before all is sent.
    let _ = frontend.raw(bytes, &borrowed);
    assert!(frontend.is_cut_off());
    port.wait_for_parting()
}

#[track_caller]
fn assert_reason(bytes: &[u8], fds: usize, expected: &str) {
    let reason = reason_for(bytes, fds);
    assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
}

#[test]
fn unknown_request_when_sent_is_named() {
    assert_reason(&message(99, 0, &[]), 0, "request 99 is unknown");
    assert_reason(&message(0, 0, &[]), 0, "request 0 is unknown");
    // IOTLB_MSG: exists, but its feature is not offered.
    assert_reason(&message(22, 0, &[0; 32]), 0, "request 22 is unknown or was not offered");
}

#[test]
fn oversized_payload_when_announced_is_not_waited_for() {
    let header = [GET_FEATURES, 1, 4097].map(u32::to_ne_bytes).concat();
    assert_reason(&header, 0, "4097 bytes was announced");
    let header = [SET_MEM_TABLE, 1, u32::MAX].map(u32::to_ne_bytes).concat();
    assert_reason(&header, 0, "bytes was announced");
}

#[test]
fn wrong_version_or_reply_when_received_is_refused() {
    let header = [GET_FEATURES, 2, 0].map(u32::to_ne_bytes).concat();
    assert_reason(&header, 0, "not those of a version 1 request");
    assert_reason(&message(GET_FEATURES, FLAG_REPLY, &[]), 0, "not those of a version 1 request");
}

#[test]
fn wrong_payload_size_when_received_is_named() {
    assert_reason(&message(SET_FEATURES, 0, &[0; 7]), 0, "SET_FEATURES has 7 bytes");
    assert_reason(&message(GET_FEATURES, 0, &[0; 8]), 0, "GET_FEATURES has 8 bytes");
    assert_reason(&message(SET_VRING_ADDR, 0, &[0; 32]), 0, "SET_VRING_ADDR has 32 bytes");
    // One region is announced, none is there.
    assert_reason(&message(SET_MEM_TABLE, 0, &[1, 0, 0, 0, 0, 0, 0, 0]), 0, "SET_MEM_TABLE has 8 bytes");
    assert_reason(&message(SET_MEM_TABLE, 0, &[0xff; 8]), 0, "SET_MEM_TABLE has 8 bytes");
    assert_reason(
        &message(GET_CONFIG, 0, &[0, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0]),
        0,
        "GET_CONFIG has 12 bytes",
    );
}

#[test]
fn wrong_number_of_descriptors_when_received_is_named() {
    assert_reason(&message(SET_VRING_KICK, 0, &[0; 8]), 0, "SET_VRING_KICK comes with 0 descriptors");
    assert_reason(&message(SET_VRING_CALL, 0, &[0; 8]), 2, "SET_VRING_CALL comes with 2 descriptors");
    assert_reason(&message(GET_FEATURES, 0, &[]), 1, "GET_FEATURES comes with 1 descriptors");
    // The message says that no descriptor comes, and one comes.
    assert_reason(
        &message(SET_VRING_KICK, 0, &0x100u64.to_ne_bytes()),
        1,
        "SET_VRING_KICK comes with 1 descriptors",
    );
    assert_reason(&message(GET_FEATURES, 0, &[]), 33, "more than 32 descriptors");
}

#[test]
fn descriptors_when_sent_with_the_payload_are_counted_too() {
    let port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    let bytes = message(SET_FEATURES, 0, &0u64.to_ne_bytes());
    frontend.raw(&bytes[..14], &[event().as_fd()]).unwrap();
    frontend.raw(&bytes[14..], &[event().as_fd()]).unwrap();
    let reason = port.wait_for_parting();
    assert!(reason.contains("SET_FEATURES comes with 2 descriptors"), "{reason}");
}

#[test]
fn ring_index_when_outside_the_port_is_named() {
    assert_reason(&message(SET_VRING_NUM, 0, &state(4, 256)), 0, "ring 4 does not exist, the port has 4");
    assert_reason(&message(SET_VRING_ENABLE, 0, &state(u32::MAX, 1)), 0, "does not exist");
    assert_reason(&message(GET_VRING_BASE, 0, &state(1 << 31, 0)), 0, "does not exist");
    assert_reason(&message(SET_VRING_KICK, 0, &0xffu64.to_ne_bytes()), 1, "ring 255 does not exist");
}

#[test]
fn ring_size_when_no_power_of_two_is_named() {
    for size in [0, 3, 257, 65_536, u32::MAX] {
        assert_reason(&message(SET_VRING_NUM, 0, &state(0, size)), 0, &format!("size {size} of ring 0"));
    }
}

#[test]
fn features_when_not_offered_are_refused() {
    assert_reason(&message(SET_FEATURES, 0, &(1u64 << 34).to_ne_bytes()), 0, "feature bits 0x400000000");
    assert_reason(&message(SET_PROTOCOL_FEATURES, 0, &(1u64 << 8).to_ne_bytes()), 0, "feature bits 0x100");
}

#[test]
fn values_without_meaning_when_received_are_refused() {
    assert_reason(&message(SET_VRING_BASE, 0, &state(0, 65_536)), 0, "base 65536 of ring 0");
    assert_reason(&message(SET_VRING_ENABLE, 0, &state(0, 2)), 0, "by 2, not 0 or 1");
    assert_reason(&message(SET_STATUS, 0, &256u64.to_ne_bytes()), 0, "more than eight bits");
    assert_reason(&message(SEND_RARP, 0, &[1; 8]), 0, "no address to announce");
    assert_reason(
        &message(NET_SET_MTU, 0, &9000u64.to_ne_bytes()),
        0,
        "9000 bytes; the network carries 1500",
    );
}

#[test]
fn memory_when_it_makes_no_sense_is_refused() {
    let table = |regions: &[[u64; 4]]| {
        let mut payload = [regions.len() as u32, 0].map(u32::to_ne_bytes).concat();
        payload.extend(regions.iter().flatten().flat_map(|field| field.to_ne_bytes()));
        payload
    };
    let cases: [(&[[u64; 4]], &str); 5] = [
        (&[[0, 0, 0, 0]], "has no bytes"),
        (&[[0, MEMORY_BYTES + 1, 0, 0]], "the region needs"),
        (&[[0, 4096, 0, u64::MAX - 4095]], "reaches past the end"),
        (&[[u64::MAX - 100, 4096, 0, 0]], "reaches past the end"),
        (&[[0, 8192, 0, 0], [4096, 8192, 1 << 40, 0]], "overlap"),
    ];
    for (regions, expected) in cases {
        let port = TestPort::create();
        let frontend = Frontend::connect(&port.path());
        let fds = vec![frontend.memory.as_fd(); regions.len()];
        frontend.request(SET_MEM_TABLE, &table(regions), &fds);
        let reason = port.wait_for_parting();
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
    }
}

#[test]
fn memory_when_refused_to_an_acknowledging_frontend_leaves_the_session_as_it_was() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(1);
    port.wait_for_up();
    // The same region again overlaps itself.
    assert_eq!(frontend.acknowledged(ADD_MEM_REG, &single_region(), &[frontend.memory.as_fd()]), 1);
    assert_eq!(frontend.acknowledged(NET_SET_MTU, &9000u64.to_ne_bytes(), &[]), 1);
    assert_eq!(frontend.acknowledged(NET_SET_MTU, &1400u64.to_ne_bytes(), &[]), 0);
    assert!(port.detail().contains("1 memory region 1 MiB"), "{}", port.detail());
    assert!(port.device.handle.link().up);
}

#[test]
fn memory_file_when_a_pipe_or_an_event_is_refused() {
    let port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    let mut payload = [1u32, 0].map(u32::to_ne_bytes).concat();
    payload.extend(region());
    frontend.request(SET_MEM_TABLE, &payload, &[event().as_fd()]);
    assert!(port.wait_for_parting().contains("memory file is on a file system of type"));
}

#[test]
fn kick_when_a_regular_file_is_refused() {
    let port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    frontend.request(SET_VRING_KICK, &1u64.to_ne_bytes(), &[frontend.memory.as_fd()]);
    assert!(port.wait_for_parting().contains("no eventfd"));
}

#[test]
fn ring_when_started_before_its_memory_waits_for_it() {
    let port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    for step in (0..Frontend::steps(1)).filter(|step| *step != 4) {
        frontend.step(step);
    }
    frontend.ask(GET_STATUS);
    let detail = port.detail();
    assert!(detail.contains("ring 0 stopped: the descriptor table at 0x700000000000"), "{detail}");
    frontend.set_memory();
    port.wait_for_up();
}

#[test]
fn ring_addresses_when_outside_all_memory_stop_only_that_ring() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(2);
    let mut payload = state(1, 0);
    payload.extend([u64::MAX - 15, u64::MAX - 15, u64::MAX - 15, 0].into_iter().flat_map(u64::to_ne_bytes));
    frontend.request(SET_VRING_ADDR, &payload, &[]);
    frontend.ask(GET_STATUS);
    assert!(port.detail().contains("ring 1 stopped"), "{}", port.detail());
    frontend.transmit(1, &[7; 60]);
    assert_eq!(poll_frame(&mut port.device, 1), [7; 60]);
}

#[test]
fn available_index_when_it_jumps_breaks_only_that_ring() {
    let mut port = TestPort::create();
    let mut frontend = Frontend::connect(&port.path());
    frontend.start(2);
    frontend.ask(GET_STATUS);
    frontend.set_avail(1, RING_SIZE + 1);
    let mut burst = frame::Burst::new();
    port.device.rx[0].poll(&mut burst, &mut |_| panic!("no frame is there"));
    assert!(port.detail().contains("ring 1 stopped: available index 9 is impossible"), "{}", port.detail());
    frontend.transmit(1, &[7; 60]);
    assert_eq!(poll_frame(&mut port.device, 1), [7; 60]);
    // The frontend can set it up anew.
    assert_eq!(frontend.stop_ring(1), 0);
    frontend.set_avail(1, 0);
    frontend.request(SET_VRING_KICK, &1u64.to_ne_bytes(), &[event().as_fd()]);
    frontend.ask(GET_STATUS);
    frontend.transmit(0, &[8; 60]);
    assert_eq!(poll_frame(&mut port.device, 0), [8; 60]);
}

#[test]
fn half_a_message_when_never_finished_blocks_nobody_else() {
    let port = TestPort::create();
    let other = directory_beside(&port);
    let silent = Frontend::connect(&port.path());
    silent.raw(&message(SET_FEATURES, 0, &[0; 8])[..15], &[]).unwrap();
    let frontend = Frontend::connect(&other.0);
    assert_ne!(frontend.ask(GET_FEATURES), 0);
    // And the half is not forgotten.
    silent.raw(&message(SET_FEATURES, 0, &[0; 8])[15..], &[]).unwrap();
    assert_ne!(silent.ask(GET_FEATURES), 0);
}

#[test]
fn messages_when_sent_byte_by_byte_are_whole() {
    let port = TestPort::create();
    let frontend = Frontend::connect(&port.path());
    for byte in message(GET_QUEUE_NUM, 0, &[]) {
        frontend.raw(&[byte], &[]).unwrap();
    }
    assert_eq!(frontend.reply_u64(GET_QUEUE_NUM), 2);
}

#[test]
fn replies_when_never_read_block_nobody_else() {
    let port = TestPort::create();
    let other = directory_beside(&port);
    let deaf = Frontend::connect(&port.path());
    deaf.socket.set_nonblocking(true).unwrap();
    let request = message(GET_FEATURES, 0, &[]);
    // Until neither side's socket buffer takes more: the switch has stopped reading.
    let mut sent = 0u64;
    while deaf.raw(&request, &[]).is_ok() {
        sent += 1;
    }
    assert!(sent > 1);
    let frontend = Frontend::connect(&other.0);
    assert_ne!(frontend.ask(GET_FEATURES), 0);
    // All are answered once they are read.
    deaf.socket.set_nonblocking(false).unwrap();
    for _ in 0..sent {
        assert_ne!(deaf.reply_u64(GET_FEATURES), 0);
    }
}

/// A second port of the same control thread.
fn directory_beside(port: &TestPort) -> (std::path::PathBuf, ports::Device) {
    let path = port.directory.path().join("other.sock");
    let device = port.control.open(create_spec(&path)).unwrap();
    (path, device)
}
