//! Are the representors of a card's virtual functions found, where the card is a switch? netdevsim is one, of the kernel's
//! own making.

use std::path::Path;

use linux::sriov::representor;
use vm::{modprobe, names, read, run, wait_for, write};

/// A card of netdevsim, which goes with it.
pub(crate) struct Card(u32);

impl Card {
    pub(crate) fn new(number: u32) -> Card {
        modprobe("netdevsim");
        write("/sys/bus/netdevsim/new_device", &format!("{number} 1"));
        Card(number)
    }

    fn folder(&self) -> std::path::PathBuf {
        Path::new("/sys/bus/netdevsim/devices").join(format!("netdevsim{}", self.0))
    }

    /// Makes functions, and the card a switch. Answers with the netdev of the physical one.
    pub(crate) fn switch(&self, functions: u32) -> String {
        let uplink = self.uplink();
        self.make_functions(functions);
        self.be_switch();
        uplink
    }

    fn uplink(&self) -> String {
        self.port(|port| !port.starts_with("pf"))
    }

    fn make_functions(&self, count: u32) {
        write(self.folder().join("sriov_numvfs"), &count.to_string());
    }

    fn be_switch(&self) {
        run(&format!("devlink dev eswitch set netdevsim/netdevsim{} mode switchdev", self.0));
    }

    /// The netdev of the port that `is_it`.
    fn port(&self, is_it: impl Fn(&str) -> bool) -> String {
        let folder = self.folder().join("net");
        let is_it = |netdev: &String| is_it(&read(format!("/sys/class/net/{netdev}/phys_port_name")));
        wait_for("a port of the card", || names(&folder).into_iter().find(is_it))
    }

    fn port_of(&self, function: u32) -> String {
        self.port(|port| port == format!("pf0vf{function}"))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/bus/netdevsim/del_device", self.0.to_string());
    }
}

#[test]
fn representor_when_the_card_is_a_switch_is_the_port_of_that_function() {
    let cards = [Card::new(1), Card::new(2)];
    let uplinks = cards.each_ref().map(Card::uplink);
    cards.iter().for_each(|card| card.make_functions(3));
    assert_eq!(representor(&uplinks[0], 0).unwrap(), None, "not a switch yet");
    cards.iter().for_each(Card::be_switch);
    let name = |uplink, index| representor(uplink, index).unwrap().map(|found| found.name);
    for (card, uplink) in cards.iter().zip(&uplinks) {
        for index in 0..3 {
            assert_eq!(name(uplink, index), Some(card.port_of(index)));
        }
        assert_eq!(name(uplink, 3), None);
    }
    // A representor may get a name that says what it is; it stays what it is.
    run(&format!("ip link set {} name ens1_2", cards[0].port_of(2)));
    assert_eq!(name(&uplinks[0], 2).as_deref(), Some("ens1_2"));
    let error = representor("missing0", 0).unwrap_err().to_string();
    assert!(error.contains("missing0"), "{error}");
}
