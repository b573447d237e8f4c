//! Do programs and machines that others wrote get along with the real `millrace switch`? A stock Linux guest in QEMU and
//! DPDK's testpmd, in both vhost-user roles, with kernel pods behind the same switch, which is killed on the way.

mod switch;
mod testpmd;
mod vm;
