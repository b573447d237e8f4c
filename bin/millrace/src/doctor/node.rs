//! What is there on this node? Read from its files, below a root that tests replace; nothing is changed or loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType};

/// The node's files.
#[derive(Debug)]
pub(super) struct Node {
    root: PathBuf,
}

/// What can be had of a kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    /// Loaded, or built in and at work.
    Present,
    /// There to be loaded.
    Loadable,
    /// Not for this kernel.
    Absent,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HugePages {
    pub(super) kib: u64,
    pub(super) total: u64,
    pub(super) free: u64,
}

/// A network card that can be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PhysicalFunction {
    pub(super) address: String,
    pub(super) netdevs: Vec<String>,
    pub(super) driver: String,
    pub(super) vfs: u32,
    pub(super) total_vfs: u32,
}

/// Capabilities that Millrace's processes use (`linux/capability.h`).
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (14, "CAP_IPC_LOCK"), (21, "CAP_SYS_ADMIN")];
/// PCI class 0x02: network controllers.
const NETWORK_CLASS: &str = "0x02";

impl Node {
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// A file's text without white space at its ends; `None` if it cannot be read.
    pub(super) fn text(&self, absolute: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.path(absolute)).ok()?.trim().to_owned())
    }

    fn number<T: std::str::FromStr>(&self, absolute: &str) -> Option<T> {
        self.text(absolute)?.parse().ok()
    }

    /// The names in a folder, sorted; none where it is missing.
    pub(super) fn names(&self, absolute: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The last part of what a link points to.
    fn target(&self, absolute: &str) -> Option<String> {
        let target = std::fs::read_link(self.path(absolute)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The kernel's release, as `uname -r` says it.
    pub(super) fn release(&self) -> String {
        self.text("/proc/sys/kernel/osrelease").unwrap_or_default()
    }

    /// The first two numbers of the release.
    pub(super) fn version(&self) -> (u32, u32) {
        let release = self.release();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    pub(super) fn module(&self, name: &str) -> Module {
        if self.exists(&format!("/sys/module/{name}")) {
            return Module::Present;
        }
        // Files may be named with either sign; the kernel does not tell them apart.
        let file = |line: &str| {
            let path = Path::new(line.split(':').next().unwrap_or_default());
            let stem = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            stem.split(".ko").next().unwrap_or_default().replace('-', "_")
        };
        let listed = |list: &str| {
            let list = self.text(&format!("/lib/modules/{}/{list}", self.release())).unwrap_or_default();
            list.lines().any(|line| file(line) == name)
        };
        match (listed("modules.builtin"), listed("modules.dep")) {
            (true, _) => Module::Present,
            (_, true) => Module::Loadable,
            _ => Module::Absent,
        }
    }

    /// The capabilities that this process lacks.
    pub(super) fn lacking(&self) -> Vec<&'static str> {
        let status = self.text("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
        CAPABILITIES.into_iter().filter(|(bit, _)| bits >> bit & 1 == 0).map(|(_, name)| name).collect()
    }

    /// Huge pages by size, the smallest first.
    pub(super) fn huge_pages(&self) -> Vec<HugePages> {
        const FOLDER: &str = "/sys/kernel/mm/hugepages";
        let mut sizes: Vec<_> = self
            .names(FOLDER)
            .into_iter()
            .filter_map(|name| {
                let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
                let count = |file: &str| self.number(&format!("{FOLDER}/{name}/{file}")).unwrap_or(0);
                Some(HugePages { kib, total: count("nr_hugepages"), free: count("free_hugepages") })
            })
            .collect();
        sizes.sort_by_key(|size| size.kib);
        sizes
    }

    /// Network cards with SR-IOV, in the order of their addresses.
    pub(super) fn physical_functions(&self) -> Vec<PhysicalFunction> {
        const FOLDER: &str = "/sys/bus/pci/devices";
        let function = |address: String| {
            let file = |name: &str| format!("{FOLDER}/{address}/{name}");
            self.text(&file("class")).filter(|class| class.starts_with(NETWORK_CLASS))?;
            let total_vfs = self.number(&file("sriov_totalvfs")).filter(|total| *total > 0)?;
            Some(PhysicalFunction {
                netdevs: self.names(&file("net")),
                driver: self.target(&file("driver")).unwrap_or_else(|| "no driver".into()),
                vfs: self.number(&file("sriov_numvfs")).unwrap_or(0),
                total_vfs,
                address,
            })
        };
        self.names(FOLDER).into_iter().filter_map(function).collect()
    }

    /// Embedded switches by their id, each with its netdevs.
    pub(super) fn switches(&self) -> BTreeMap<String, Vec<String>> {
        let mut switches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in self.names("/sys/class/net") {
            // Reading it fails for a netdev that belongs to none.
            let id = self.text(&format!("/sys/class/net/{name}/phys_switch_id"));
            if let Some(id) = id.filter(|id| !id.is_empty()) {
                switches.entry(id).or_default().push(name);
            }
        }
        switches
    }

    /// Devices of the vDPA bus, each with its driver.
    pub(super) fn vdpa_devices(&self) -> Vec<(String, Option<String>)> {
        const FOLDER: &str = "/sys/bus/vdpa/devices";
        let driver = |name: &str| self.target(&format!("{FOLDER}/{name}/driver"));
        self.names(FOLDER).into_iter().map(|name| (name.clone(), driver(&name))).collect()
    }
}

/// Whether this kernel knows sockets of AF_XDP, and this process may have one.
///
/// # Errors
/// The kernel's answer.
pub(super) fn xdp_socket() -> Result<(), rustix::io::Errno> {
    // AF_XDP of linux/socket.h.
    rustix::net::socket(AddressFamily::from_raw(44), SocketType::RAW, None).map(drop)
}
