//! Does `millrace doctor` see the cards and the IOMMU of this guest?

use vm::{modprobe, program, run, wait_for};

#[test]
fn doctor_lists_the_cards_with_their_functions_and_the_iommu() {
    modprobe("igb vfio_pci");
    let words = format!("{} doctor --need iommu,vfio,sriov", program("millrace").display());
    wait_for("the driver has bound the cards", || run(&words).contains("(igb): 0 of 7 VFs").then_some(()));
}
