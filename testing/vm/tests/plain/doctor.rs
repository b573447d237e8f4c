//! Does `millrace doctor` see what this guest has?

use vm::{attempt, modprobe, program};

fn doctor(words: &str) -> Result<String, String> {
    attempt(&format!("{} doctor {words}", program("millrace").display()))
}

#[test]
fn doctor_when_the_modules_are_loaded_finds_vduse_and_what_else_is_here() {
    modprobe("tun vduse virtio_vdpa virtio_net vhost_vdpa");
    doctor("--need kernel,privileges,tap,vduse,vdpa-vhost,vdpa,cgroups,af-xdp").unwrap();
}

#[test]
fn doctor_when_a_module_is_not_loaded_names_the_command() {
    modprobe("--remove vhost_vdpa");
    let error = doctor("--need vdpa-vhost").unwrap_err();
    assert!(error.contains("modprobe vhost_vdpa"), "{error}");
}
