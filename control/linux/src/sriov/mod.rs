//! How is a virtual function of a card (SR-IOV) given to a pod, as a netdev or to a program, and taken back as it was?
//!
//! `cards`: [`reconcile::Cards`] by all of the others; what is asked and what is remembered is data of `model` and
//! `reconcile`. `vf`: which function it is. `settings`: what
//! the card enforces on it. `netdev`: its way into a pod and back. `driver`, `vfio`: who drives it. `restore`: all of that
//! undone. `representor`: its port of the card's switch. `card`: its vDPA devices; `vdpa`: one that was there before, and comes back as it was. `sysfs`, `link`, `bounded`: the kernel.
//!
//! Whoever attaches reads [`Vf::state`] first and keeps it where it survives; then [`Vf::configure`], and
//! [`Vf::give_netdev`] or [`Vf::bind_vfio`]. [`restore`] undoes that, from wherever it stopped. All of them find their work
//! done when they are asked again.
mod bounded;
mod card;
mod cards;
mod driver;
mod link;
mod netdev;
mod representor;
mod restore;
mod settings;
mod sysfs;
mod vdpa;
mod vf;
mod vfio;

pub use model::{AddressError, ConfigError, PciAddress, VfConfig, VfLinkState, Vlan, VlanProtocol};
pub use reconcile::cards::{NetdevPlace, NetdevState, Representor, Restored, VfSettings, VfState};

pub use card::{can_vhost, vdpa_maker};
pub use driver::bind_driver;
pub use representor::{of as representor, set as set_representor};
pub use restore::restore;
pub use vf::Vf;
