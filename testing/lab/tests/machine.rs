//! Does the lab's virtual machine start, run a script and end?
use std::time::Duration;

use lab::{Vm, VmSpec};

#[test]
fn a_machine_runs_its_script_and_ends() {
    if !lab::require("a_machine_runs_its_script_and_ends", lab::vm_ready()) {
        return;
    }
    let spec =
        VmSpec { script: "echo hello from $(uname -s); exit 7".into(), memory_mib: 256, cards: vec![] };
    let mut vm = Vm::boot(&spec).unwrap();
    vm.wait_for("guest: script ended with 7", Duration::from_secs(120)).unwrap();
    assert!(vm.console().contains("hello from Linux"));
}
