//! A card with virtual functions, and a pod: what do the tests of SR-IOV build on?

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use lab::{Netns, ping};
use linux::sriov::{NetdevPlace, Restored, Vf, VfState, restore};
use vm::{PATIENCE, modprobe, names, netdev, read, run, wait_for, write};

/// One of the two cards, with virtual functions. They go with it.
pub(crate) struct Card {
    folder: PathBuf,
    /// The netdev of its physical function, which is up.
    pub(crate) pf: String,
}

impl Card {
    /// The first card, with two functions that a driver has.
    pub(crate) fn new() -> Card {
        let card = Card::with_netdev(0);
        card.make_functions(2);
        card
    }

    /// The second card, on the same wire as the first, without functions.
    pub(crate) fn peer() -> Card {
        Card::with_netdev(1)
    }

    fn with_netdev(number: usize) -> Card {
        modprobe("igb igbvf");
        let folder = Path::new("/sys/bus/pci/drivers/igb");
        let functions = wait_for("two cards", || {
            let functions = names(folder).into_iter().filter(|name| name.contains(':')).collect::<Vec<_>>();
            (functions.len() == 2).then_some(functions)
        });
        let folder = Path::new("/sys/bus/pci/devices").join(&functions[number]);
        let pf = netdev(&folder);
        let card = Card { folder, pf };
        run(&format!("ip link set {} up", card.pf));
        card.await_carrier();
        card
    }

    fn await_carrier(&self) {
        let carrier = format!("/sys/class/net/{}/carrier", self.pf);
        wait_for("the card's link", || (read(&carrier) == "1").then_some(()));
    }

    /// Makes functions, each with its netdev.
    pub(crate) fn make_functions(&self, count: u32) {
        write(self.folder.join("sriov_numvfs"), &count.to_string());
        for index in 0..count {
            netdev(self.folder.join(format!("virtfn{index}")));
        }
        // The card starts anew for it.
        self.await_carrier();
        (0..count).for_each(|index| self.introduce(index));
    }

    /// Has the card know the address that a function chose: its driver tells of it when it starts, which a start of the card
    /// can undo, and for certain when the netdev is taken down.
    fn introduce(&self, index: u32) {
        let folder = self.function(index).join("net");
        wait_for("the card to know the function's address", || {
            let name = names(&folder).into_iter().next()?;
            let own = read(folder.join(&name).join("address"));
            if self.shown_function(index as usize)["address"] == own.as_str() {
                return Some(());
            }
            run(&format!("ip link set {name} up"));
            run(&format!("ip link set {name} down"));
            None
        });
    }

    pub(crate) fn remove_functions(&self) {
        write(self.folder.join("sriov_numvfs"), "0");
    }

    pub(crate) fn vf(&self, index: u32) -> Vf {
        Vf::of(&self.pf, index).unwrap()
    }

    /// The folder of a function in sysfs.
    pub(crate) fn function(&self, index: u32) -> PathBuf {
        self.folder.join(format!("virtfn{index}"))
    }

    /// What the card enforces, and how its own netdev is, in iproute2's words.
    pub(crate) fn shown(&self) -> String {
        run(&format!("ip -d link show dev {}", self.pf))
    }

    /// What iproute2 shows of one function.
    pub(crate) fn shown_function(&self, index: usize) -> serde_json::Value {
        let shown = run(&format!("ip -json -details link show dev {}", self.pf));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["vfinfo_list"][index].clone()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Not by the helpers, which panic: the test may be panicking already.
        let _ = std::fs::write(self.folder.join("sriov_numvfs"), "0");
        let _ = vm::attempt(&format!("ip link set {} down", self.pf));
    }
}

/// A pod's namespace, its interface in it, and what is to be undone.
pub(crate) struct Pod {
    pub(crate) netns: Option<Netns>,
    pub(crate) vf: Vf,
    pub(crate) before: VfState,
}

impl Pod {
    /// A namespace, with nothing in it yet.
    pub(crate) fn new(vf: Vf) -> Pod {
        let before = vf.state().unwrap();
        Pod { netns: Some(Netns::new().unwrap()), vf, before }
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.netns.as_ref().unwrap()
    }

    /// Where its interface is to be: `eth0`, as the physical function's is called on the node.
    pub(crate) fn place(&self) -> NetdevPlace {
        NetdevPlace { netns: self.netns().path(), name: "eth0".into(), mac: None, mtu_bytes: None }
    }

    /// Gives it the netdev, and an address.
    pub(crate) fn attach(&self, ip: Ipv4Addr) {
        self.vf.give_netdev(&self.place()).unwrap();
        self.come_up(ip);
    }

    pub(crate) fn come_up(&self, ip: Ipv4Addr) {
        self.netns().ip(&format!("addr add {ip}/24 dev eth0")).unwrap();
        self.netns().ip("link set eth0 up").unwrap();
    }

    /// What CNI's DEL does.
    pub(crate) fn del(&self) -> Restored {
        let netns = self.netns.as_ref().map(Netns::path);
        restore(self.vf.address, &self.before, netns.as_deref().or(Some(Path::new("/run/netns/gone"))))
    }

    /// The function is as it was, and stays so when it is asked for again.
    #[track_caller]
    pub(crate) fn assert_comes_back(&self) {
        for _ in 0..2 {
            assert_eq!(self.del(), Restored::default());
            assert_eq!(self.vf.state().unwrap(), self.before);
        }
    }
}

/// Waits until a namespace reaches an address.
#[track_caller]
pub(crate) fn assert_reaches(from: &Netns, to: Ipv4Addr) {
    let second = std::time::Duration::from_secs(1);
    wait_for("an answer", || (ping(from, to, 1, second).unwrap().lost() == 0).then_some(()));
    assert_eq!(ping(from, to, 3, PATIENCE).unwrap().lost(), 0);
}

/// No answer comes, though one would have come by now.
#[track_caller]
pub(crate) fn assert_does_not_reach(from: &Netns, to: Ipv4Addr) {
    let report = ping(from, to, 3, std::time::Duration::from_millis(500)).unwrap();
    assert_eq!(report.lost(), report.sent, "{to} answers");
}
