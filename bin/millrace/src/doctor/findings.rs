//! What can this node do, and what should be done about what it cannot?

use serde::Serialize;

use super::node::{Module, Node, PhysicalFunction};

/// Netdevs on VDUSE devices.
const VDUSE_NETDEVS_SINCE: (u32, u32) = (6, 9);

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It works.
    Ok,
    /// It is there, and could be better.
    Limited,
    /// It does not work here.
    Missing,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What: a word that `--need` takes.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What it is for.
    pub(super) purpose: &'static str,
    /// What to do; empty where nothing is to be done.
    pub(super) remedy: String,
}

impl Finding {
    fn new(name: &'static str, purpose: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), purpose, remedy: String::new() }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

/// Everything, in the order in which it matters.
pub(super) fn all(node: &Node, xdp: Result<(), rustix::io::Errno>) -> Vec<Finding> {
    vec![
        kernel(node),
        privileges(node),
        tap(node),
        vduse(node),
        vhost_vdpa(node),
        huge_pages(node),
        cpus(node),
        cgroups(node),
        iommu(node),
        vfio(node),
        sriov(node),
        vdpa(node),
        switchdev(node),
        af_xdp(xdp),
    ]
}

/// The names of [`all`].
pub(super) const NAMES: [&str; 14] = [
    "kernel",
    "privileges",
    "tap",
    "vduse",
    "vdpa-vhost",
    "hugepages",
    "cpus",
    "cgroups",
    "iommu",
    "vfio",
    "sriov",
    "vdpa",
    "switchdev",
    "af-xdp",
];

fn kernel(node: &Node) -> Finding {
    let purpose = "everything";
    let found = format!("Linux {}", node.release());
    if node.version() < VDUSE_NETDEVS_SINCE {
        return Finding::new("kernel", purpose, Verdict::Limited, found)
            .remedy("Linux 6.9 or newer has netdevs by VDUSE; older ones get TAP");
    }
    Finding::new("kernel", purpose, Verdict::Ok, found)
}

fn privileges(node: &Node) -> Finding {
    let lacking = node.lacking();
    let purpose = "switch and agent";
    if lacking.is_empty() {
        return Finding::new("privileges", purpose, Verdict::Ok, "all that is needed");
    }
    Finding::new("privileges", purpose, Verdict::Missing, format!("without {}", lacking.join(", ")))
        .remedy("run as root on the node (a pod: privileged, or these capabilities)")
}

/// A word for a module that is not at work, and what to do.
fn module(node: &Node, name: &str) -> Result<(), (String, String)> {
    match node.module(name) {
        Module::Present => Ok(()),
        Module::Loadable => Err((format!("module {name} is not loaded"), format!("modprobe {name}"))),
        Module::Absent => Err((
            format!("this kernel has no module {name}"),
            "a kernel that has it; some distributions keep it in a package of extra modules".into(),
        )),
    }
}

fn tap(node: &Node) -> Finding {
    let purpose = "netdevs for pods, on any kernel";
    if node.exists("/dev/net/tun") {
        return Finding::new("tap", purpose, Verdict::Ok, "/dev/net/tun");
    }
    let (found, remedy) = module(node, "tun")
        .err()
        .unwrap_or_else(|| ("no /dev/net/tun".into(), "mount the node's /dev".into()));
    Finding::new("tap", purpose, Verdict::Missing, found).remedy(remedy)
}

fn vduse(node: &Node) -> Finding {
    let purpose = "virtio netdevs for pods";
    let missing = |found: String, remedy: String| {
        Finding::new("vduse", purpose, Verdict::Missing, found).remedy(remedy)
    };
    if node.version() < VDUSE_NETDEVS_SINCE {
        return missing(
            format!("Linux {} has none for networks", node.release()),
            "Linux 6.9 or newer".into(),
        );
    }
    for name in ["vdpa", "vduse", "virtio_vdpa", "virtio_net"] {
        if let Err((found, remedy)) = module(node, name) {
            return missing(found, remedy);
        }
    }
    if !node.exists("/dev/vduse/control") {
        return missing("no /dev/vduse/control".into(), "mount the node's /dev".into());
    }
    Finding::new("vduse", purpose, Verdict::Ok, "/dev/vduse/control and its drivers")
}

fn vhost_vdpa(node: &Node) -> Finding {
    let purpose = "vDPA devices for DPDK and VMs";
    match module(node, "vhost_vdpa") {
        Ok(()) => Finding::new("vdpa-vhost", purpose, Verdict::Ok, "module vhost_vdpa"),
        Err((found, remedy)) => Finding::new("vdpa-vhost", purpose, Verdict::Missing, found).remedy(remedy),
    }
}

fn huge_pages(node: &Node) -> Finding {
    let purpose = "DPDK programs and VMs";
    let sizes = node.huge_pages();
    if sizes.is_empty() {
        return Finding::new("hugepages", purpose, Verdict::Missing, "this kernel has none")
            .remedy("a kernel with CONFIG_HUGETLBFS");
    }
    let texts: Vec<_> =
        sizes.iter().map(|size| format!("{} of {} KiB ({} free)", size.total, size.kib, size.free)).collect();
    let found = texts.join(", ");
    if sizes.iter().all(|size| size.total == 0) {
        return Finding::new("hugepages", purpose, Verdict::Limited, found)
            .remedy("reserve some: sysctl vm.nr_hugepages=1024, or hugepages= on the kernel's command line");
    }
    Finding::new("hugepages", purpose, Verdict::Ok, found)
}

fn cpus(node: &Node) -> Finding {
    let purpose = "the switch's workers";
    let file = |name: &str| node.text(&format!("/sys/devices/system/cpu/{name}")).unwrap_or_default();
    let (online, isolated) = (file("online"), file("isolated"));
    let found = format!("online {online}, isolated {}", if isolated.is_empty() { "none" } else { &isolated });
    if isolated.is_empty() {
        return Finding::new("cpus", purpose, Verdict::Limited, found).remedy(
            "for steady latency: isolcpus= or a cpuset for the workers' CPUs (`millrace switch --cpus`)",
        );
    }
    Finding::new("cpus", purpose, Verdict::Ok, found)
}

fn cgroups(node: &Node) -> Finding {
    let purpose = "CPU and memory of pods";
    if node.exists("/sys/fs/cgroup/cgroup.controllers") {
        return Finding::new("cgroups", purpose, Verdict::Ok, "version 2");
    }
    if node.names("/sys/fs/cgroup").is_empty() {
        return Finding::new("cgroups", purpose, Verdict::Missing, "none are mounted")
            .remedy("mount -t cgroup2 none /sys/fs/cgroup");
    }
    Finding::new("cgroups", purpose, Verdict::Limited, "version 1")
        .remedy("Kubernetes leaves version 1 behind: boot with systemd.unified_cgroup_hierarchy=1")
}

fn iommu(node: &Node) -> Finding {
    let purpose = "devices in the hands of DPDK and VMs";
    match node.names("/sys/kernel/iommu_groups").len() {
        0 => Finding::new("iommu", purpose, Verdict::Missing, "no groups").remedy(
            "switch it on in the firmware (VT-d, AMD-Vi, SMMU), and boot with intel_iommu=on iommu=pt on Intel",
        ),
        groups => Finding::new("iommu", purpose, Verdict::Ok, format!("{groups} groups")),
    }
}

fn vfio(node: &Node) -> Finding {
    let purpose = "VFs for DPDK and VMs";
    match module(node, "vfio_pci") {
        Ok(()) => Finding::new("vfio", purpose, Verdict::Ok, "module vfio_pci"),
        Err((found, remedy)) => Finding::new("vfio", purpose, Verdict::Missing, found).remedy(remedy),
    }
}

fn sriov(node: &Node) -> Finding {
    let purpose = "VFs of network cards";
    let functions = node.physical_functions();
    if functions.is_empty() {
        return Finding::new("sriov", purpose, Verdict::Missing, "no network card with SR-IOV")
            .remedy("a card that has it, with SR-IOV switched on in the firmware");
    }
    let text = |function: &PhysicalFunction| {
        let PhysicalFunction { address, driver, vfs, total_vfs, netdevs } = function;
        let name = netdevs.first().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{address}{name} ({driver}): {vfs} of {total_vfs} VFs")
    };
    let found = functions.iter().map(text).collect::<Vec<_>>().join("; ");
    if functions.iter().all(|function| function.vfs == 0) {
        let address = &functions[0].address;
        return Finding::new("sriov", purpose, Verdict::Limited, found)
            .remedy(format!("create VFs: echo N > /sys/bus/pci/devices/{address}/sriov_numvfs"));
    }
    Finding::new("sriov", purpose, Verdict::Ok, found)
}

fn vdpa(node: &Node) -> Finding {
    let purpose = "virtio devices, of cards too";
    if let Err((found, remedy)) = module(node, "vdpa") {
        return Finding::new("vdpa", purpose, Verdict::Missing, found).remedy(remedy);
    }
    let devices = node.vdpa_devices();
    let text = |(name, driver): &(String, Option<String>)| {
        format!("{name} ({})", driver.as_deref().unwrap_or("no driver"))
    };
    let found = match devices.len() {
        0 => "the bus, without devices".to_owned(),
        _ => devices.iter().map(text).collect::<Vec<_>>().join(", "),
    };
    Finding::new("vdpa", purpose, Verdict::Ok, found)
}

fn switchdev(node: &Node) -> Finding {
    let purpose = "forwarding in the card";
    let switches = node.switches();
    if switches.is_empty() {
        return Finding::new("switchdev", purpose, Verdict::Missing, "no card in switchdev mode")
            .remedy("on a card that has it: devlink dev eswitch set pci/ADDRESS mode switchdev");
    }
    let text = |(id, netdevs): (&String, &Vec<String>)| format!("{id}: {}", netdevs.join(" "));
    Finding::new("switchdev", purpose, Verdict::Ok, switches.iter().map(text).collect::<Vec<_>>().join("; "))
}

fn af_xdp(socket: Result<(), rustix::io::Errno>) -> Finding {
    let purpose = "uplinks on a kernel driver";
    match socket {
        Ok(()) => Finding::new("af-xdp", purpose, Verdict::Ok, "sockets can be made"),
        Err(errno) => Finding::new("af-xdp", purpose, Verdict::Missing, format!("no socket: {errno}"))
            .remedy("a kernel with CONFIG_XDP_SOCKETS, and CAP_NET_RAW"),
    }
}
