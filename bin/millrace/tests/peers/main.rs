//! Do programs and machines that others wrote get along with the real `millrace switch`? A stock Linux guest in QEMU and
//! DPDK's testpmd, in both vhost-user roles, with kernel pods behind the same switch, which is killed on the way; Open
//! vSwitch at the other end of tunnels.

#[path = "../node/mod.rs"]
mod node;
mod ovs;
mod switch;
mod testpmd;
mod tunnels;
mod vm;
