//! How is a virtual function of a card (SR-IOV) given to a pod, as a netdev or to a program, and taken back as it was?
//!
//! `address`, `config`, `state`: what is asked and what is remembered, as data. `vf`: which function it is. `settings`: what
//! the card enforces on it. `netdev`: its way into a pod and back. `driver`, `vfio`: who drives it. `restore`: all of that
//! undone. `representor`: its port of the card's switch. `card`: its vDPA devices. `sysfs`, `link`, `bounded`: the kernel.
//!
//! Whoever attaches reads [`Vf::state`] first and keeps it where it survives; then [`Vf::configure`], and
//! [`Vf::give_netdev`] or [`Vf::bind_vfio`]. [`restore`] undoes that, from wherever it stopped. All of them find their work
//! done when they are asked again.
mod address;
mod bounded;
mod card;
mod config;
mod driver;
mod link;
mod netdev;
mod representor;
mod restore;
mod settings;
mod state;
mod sysfs;
mod vf;
mod vfio;

pub use address::{AddressError, PciAddress};
pub use card::{can_vhost, vdpa_maker};
pub use config::{ConfigError, VfConfig, VfLinkState, Vlan, VlanProtocol};
pub use driver::bind_driver;
pub use netdev::NetdevPlace;
pub use representor::of as representor;
pub use restore::{Restored, restore};
pub use state::{NetdevState, VfSettings, VfState};
pub use vf::Vf;
