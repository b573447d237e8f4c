//! Do pods get netdevs of VDUSE, and files of vhost-vdpa, by the real plugin from real processes, and does all of it go again?

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use lab::{Process, iperf3, ping};
use serde_json::{Value, json};
use vm::{PATIENCE, attempt, modprobe, names, read, run, wait_for, write};

use vm::node::{MODULES, Node, Pod, assert_reaches};

/// Nothing of any pod is on the vDPA bus, in VDUSE, or among the node's netdevs.
#[track_caller]
fn assert_nothing_left(node: &Node) {
    assert_eq!(node.attachments(), Vec::<Value>::new());
    assert_eq!(names("/sys/bus/vdpa/devices"), Vec::<String>::new());
    assert_eq!(run("vdpa dev show"), "");
    assert_eq!(names("/dev/vduse"), ["control"]);
    let netdevs = names("/sys/class/net");
    assert!(netdevs.iter().all(|name| !name.starts_with("eth")), "{netdevs:?}");
    assert_eq!(names(node.path("vhost")), Vec::<String>::new());
}

fn device(node: &Node, pod: &Pod) -> String {
    node.attachment(pod)["vdpa_device"].as_str().unwrap().to_owned()
}

#[test]
fn pods_of_vduse_and_tap_reach_each_other_and_are_what_they_say() {
    modprobe(MODULES);
    let node = Node::start();
    let pods = [node.add("first", "vduse"), node.add("second", "auto"), node.add("third", "tap")];
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        assert_reaches(&pods[from], &pods[to]);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let (client, server) = (pods[from].netns(), pods[to].netns());
        iperf3(client, server, pods[to].ipv4().into(), 16 << 10, Duration::from_secs(1)).unwrap();
    }
    let asked = "the CNI configuration asks for it";
    let reasons = [asked, "auto: the kernel has VDUSE", asked];
    for (pod, reason) in pods.iter().zip(reasons) {
        assert_eq!(node.attachment(pod)["port_kind_reason"], reason);
    }
    for pod in &pods[..2] {
        let (name, link) = (device(&node, pod), pod.link());
        assert_eq!(node.attachment(pod)["port_kind"], "vduse");
        assert_eq!(link["address"], pod.result["interfaces"][0]["mac"]);
        assert_eq!((&link["mtu"], &link["operstate"]), (&json!(1400), &json!("UP")));
        let driver = pod.netns().command("ethtool", "-i eth0").unwrap();
        assert!(
            driver.contains("driver: virtio_net") && driver.contains(&format!("bus-info: {name}")),
            "{driver}"
        );
        let shown = run(&format!("vdpa dev show {name}"));
        assert!(shown.contains("mgmtdev vduse") && shown.contains("type network"), "{shown}");
        let routes = pod.netns().ip("route show").unwrap();
        assert!(routes.contains("192.168.0.0/16 via 10.1.0.1"), "{routes}");
        let mut check = node.config("vduse");
        check["prevResult"] = pod.result.clone();
        node.call_with("CHECK", Some(pod), &check).unwrap();
    }
    for pod in &pods {
        node.del(pod);
        assert!(pod.netns().ip("link show dev eth0").is_err(), "{}", pod.id);
        node.del(pod);
    }
    assert_nothing_left(&node);
}

#[test]
fn a_killed_switch_loses_no_ping_and_no_connection() {
    modprobe(MODULES);
    let mut node = Node::start();
    let pods = [node.add("first", "vduse"), node.add("second", "vduse")];
    assert_reaches(&pods[0], &pods[1]);
    let before = pods.each_ref().map(|pod| pod.link()["ifindex"].clone());
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| ping(pods[0].netns(), pods[1].ipv4(), 1000, PATIENCE).unwrap());
        kill_twice(&mut node);
        assert_eq!(pings.join().unwrap().lost(), 0, "the switch dropped: {}", node.get("drops"));
    });
    std::thread::scope(|scope| {
        let (client, server, time) = (pods[1].netns(), pods[0].netns(), Duration::from_secs(8));
        let to = pods[0].ipv4().into();
        let stream = scope.spawn(move || iperf3(client, server, to, 16 << 10, time));
        kill_twice(&mut node);
        assert!(stream.join().unwrap().unwrap() > 0.0);
    });
    assert_eq!(pods.each_ref().map(|pod| pod.link()["ifindex"].clone()), before, "the same netdevs");
    pods.iter().for_each(|pod| node.del(pod));
    assert_nothing_left(&node);
}

fn kill_twice(node: &mut Node) {
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(500));
        node.switch.kill();
        std::thread::sleep(Duration::from_millis(300));
        node.start_switch();
        std::thread::sleep(Duration::from_millis(1500));
    }
    node.await_ready();
}

#[test]
fn del_when_the_pod_died_first_takes_the_netdev_from_the_node() {
    modprobe(MODULES);
    let node = Node::start();
    let mut pod = node.add("short", "vduse");
    pod.netns = None;
    wait_for("the netdev to come back", || Path::new("/sys/class/net/eth0").exists().then_some(()));
    node.del(&pod);
    assert_nothing_left(&node);
}

#[test]
fn del_when_the_switch_is_dead_leaves_nothing_and_the_name_is_free() {
    modprobe(MODULES);
    let mut node = Node::start();
    let pods = [node.add("netdev", "vduse"), node.add("file", "vdpa-vhost")];
    node.switch.kill();
    pods.iter().for_each(|pod| node.del(pod));
    assert_nothing_left(&node);
    node.start_switch();
    node.await_ready();
    let again = [node.add("netdev", "vduse"), node.add("second", "vduse")];
    assert_reaches(&again[0], &again[1]);
    again.iter().for_each(|pod| node.del(pod));
    assert_nothing_left(&node);
}

#[test]
fn del_when_the_switch_hangs_is_refused_and_finished_once_it_is_gone() {
    modprobe(MODULES);
    let mut node = Node::start();
    let pod = node.add("stuck", "vduse");
    node.stop_switch();
    let error = node.call("DEL", Some(&pod), "auto").unwrap_err().to_string();
    assert!(error.contains("still has it open"), "{error}");
    assert_eq!(node.attachment(&pod)["state"], "deleting");
    node.start_switch();
    node.await_ready();
    node.del(&pod);
    assert_nothing_left(&node);
}

#[test]
fn a_device_removed_under_us_is_reported_and_made_again() {
    modprobe(MODULES);
    let mut node = Node::start();
    let pods = [node.add("first", "vduse"), node.add("second", "vduse")];
    let name = device(&node, &pods[0]);
    let mut check = node.config("vduse");
    check["prevResult"] = pods[0].result.clone();
    let error = wait_for("CHECK to report it", || {
        // Again, if the agent has just looked and made it again.
        let _ = std::process::Command::new("vdpa").args(["dev", "del", &name]).status();
        node.call_with("CHECK", Some(&pods[0]), &check).err()
    });
    assert_eq!(error["code"], 104, "{error}");
    assert!(error.to_string().contains(&format!("{name} is gone from the vDPA bus")), "{error}");
    // The agent looks now and then, and when it starts.
    node.start_agent();
    wait_for("CHECK to succeed", || node.call_with("CHECK", Some(&pods[0]), &check).ok());
    assert_reaches(&pods[0], &pods[1]);
    pods.iter().for_each(|pod| node.del(pod));
    assert_nothing_left(&node);
}

#[test]
fn a_device_that_broke_while_the_switch_was_away_is_made_anew() {
    modprobe(MODULES);
    let mut node = Node::start();
    let pod = node.add("dpdk", "vdpa-vhost");
    let found = node.attachment(&pod);
    let before = found["device_path"].as_str().unwrap();
    node.switch.kill();
    write(format!("/sys/class/vduse/{}/msg_timeout", device(&node, &pod)), "1");
    // A program resets the device when it opens it, and nobody answers.
    let _ = std::fs::File::options().read(true).write(true).open(before);
    node.start_switch();
    node.start_agent();
    let mut check = node.config("vdpa-vhost");
    check["prevResult"] = pod.result.clone();
    wait_for("CHECK to succeed", || node.call_with("CHECK", Some(&pod), &check).ok());
    let found = node.attachment(&pod);
    let path = found["device_path"].as_str().unwrap();
    std::fs::File::options().read(true).write(true).open(path).unwrap();
    let info = std::fs::read_to_string(node.path("vhost/dpdk/eth0-device.json")).unwrap();
    assert!(info.contains(path), "{info}");
    node.del(&pod);
    assert_nothing_left(&node);
}

#[test]
fn pods_that_come_and_go_at_once_each_have_their_own() {
    modprobe(MODULES);
    let node = Node::start();
    let names: Vec<String> = (0..8).map(|number| format!("pod{number}")).collect();
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let adds: Vec<_> = names.iter().map(|name| scope.spawn(|| node.add(name, "vduse"))).collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let devices: BTreeSet<String> = pods.iter().map(|pod| device(&node, pod)).collect();
    assert_eq!(devices.len(), pods.len());
    pods[1..].iter().for_each(|pod| assert_reaches(&pods[0], pod));
    std::thread::scope(|scope| {
        pods.iter().for_each(|pod| {
            scope.spawn(|| node.del(pod));
        });
    });
    assert_nothing_left(&node);
}

#[test]
fn an_agent_that_is_killed_at_any_step_leaves_nothing_that_del_does_not_remove() {
    modprobe(MODULES);
    let mut node = Node::start();
    for step in 0..8 {
        let kind = ["vduse", "vdpa-vhost"][step % 2];
        let mut pod = Pod::new(&format!("pod{step}"));
        let add = node.plugin("ADD", Some(&pod), &node.config(kind));
        // Not to wait for anything: the agent is to die somewhere else in each round.
        std::thread::sleep(Duration::from_millis(15 * step as u64));
        node.start_agent();
        let _ = add.wait_with_output();
        if step % 4 < 2 {
            node.add_to(&mut pod, kind);
            let del = node.plugin("DEL", Some(&pod), &node.config(kind));
            std::thread::sleep(Duration::from_millis(10 * step as u64));
            node.start_agent();
            let _ = del.wait_with_output();
        }
        node.del(&pod);
        assert_nothing_left(&node);
    }
}

#[test]
fn a_pod_of_vdpa_vhost_gets_a_file_that_its_program_must_close_first() {
    modprobe(MODULES);
    let node = Node::start();
    let pod = node.add("dpdk", "vdpa-vhost");
    let found = node.attachment(&pod);
    let (name, path) = (found["vdpa_device"].as_str().unwrap(), found["device_path"].as_str().unwrap());
    let info: Value =
        serde_json::from_slice(&std::fs::read(node.path("vhost/dpdk/eth0-device.json")).unwrap()).unwrap();
    let expected = json!({
        "type": "vdpa", "version": "1.1.0",
        "vdpa": { "parent-device": name, "driver": "vhost", "path": path },
    });
    assert_eq!(info, expected);
    assert!(read(format!("/sys/bus/vdpa/devices/{name}/driver_override")).contains("vhost_vdpa"));
    assert!(pod.netns().ip("link show dev eth0").is_err(), "no netdev");
    let opened = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let error = node.call("DEL", Some(&pod), "auto").unwrap_err().to_string();
    assert!(error.contains(&format!("a program has {path} open")), "{error}");
    drop(opened);
    node.del(&pod);
    assert_nothing_left(&node);
}

#[test]
fn a_dpdk_program_with_the_file_of_its_pod_answers_a_kernel_pod() {
    modprobe(MODULES);
    let node = Node::start();
    let (kernel, dpdk) = (node.add("kernel", "vduse"), node.add("dpdk", "vdpa-vhost"));
    let path = node.attachment(&dpdk)["device_path"].as_str().unwrap().to_owned();
    let mac = dpdk.result["interfaces"][0]["mac"].as_str().unwrap();
    let folder = node.path("");
    let args = format!(
        "XDG_RUNTIME_DIR={folder} RUNTIME_DIRECTORY={folder} dpdk-testpmd --lcores=0@0,1@1 --no-pci --no-huge \
         --iova-mode=va -m128 --file-prefix=attach --vdev=net_virtio_user0,path={path},mac={mac} -- \
         --nb-cores=1 --forward-mode=icmpecho --total-num-mbufs=4096 --auto-start",
        folder = folder.display()
    );
    let testpmd = Process::start("env", args.split_whitespace(), &folder.join("testpmd.log")).unwrap();
    let permanent = format!("neigh replace {} lladdr {mac} dev eth0 nud permanent", dpdk.ipv4());
    kernel.netns().ip(&permanent).unwrap();
    assert_reaches(&kernel, &dpdk);
    drop(testpmd);
    [&dpdk, &kernel].into_iter().for_each(|pod| node.del(pod));
    assert_nothing_left(&node);
}

#[test]
fn a_kernel_without_vduse_gives_a_tap_and_says_what_to_do() {
    modprobe(MODULES);
    modprobe("--remove virtio_vdpa vhost_vdpa vduse");
    let node = Node::start();
    let pod = node.add("plain", "auto");
    let found = node.attachment(&pod);
    assert_eq!(found["port_kind"], "tap");
    assert!(found["port_kind_reason"].as_str().unwrap().contains("modprobe vduse"), "{found}");
    let error = node.call("ADD", Some(&Pod::new("wanting")), "vduse").unwrap_err().to_string();
    assert!(error.contains("modprobe vduse") && error.contains("kind auto"), "{error}");
    node.del(&pod);
    assert_eq!(node.attachments(), Vec::<Value>::new());
    assert!(attempt("ls /dev/vduse/control").is_err());
}
