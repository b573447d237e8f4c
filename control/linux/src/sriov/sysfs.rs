//! What does sysfs tell of PCI functions, and how does it change their drivers?

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::sysfs::{link_name, missing_is_none, names};
use model::PciAddress;

/// What the file says where there is nothing to say.
const NOTHING: &str = "(null)";
/// The parameter by which vfio does without an IOMMU.
const UNSAFE_VFIO: &str = "module/vfio/parameters/enable_unsafe_noiommu_mode";
/// The name of an IOMMU group that vfio made where there is no IOMMU.
const UNSAFE_GROUP: &str = "vfio-noiommu";

/// The kernel's tree of devices.
#[derive(Debug, Clone)]
pub(super) struct Sysfs(PathBuf);

impl Sysfs {
    /// That of this kernel.
    pub(super) fn of_kernel() -> Self {
        Self(PathBuf::from("/sys"))
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    pub(super) fn exists(&self, address: PciAddress) -> bool {
        self.device(address).is_dir()
    }

    /// The driver that has it.
    pub(super) fn driver(&self, address: PciAddress) -> io::Result<Option<String>> {
        link_name(&self.device(address).join("driver"))
    }

    /// The one driver that may have it.
    pub(super) fn driver_override(&self, address: PciAddress) -> io::Result<Option<String>> {
        let text = missing_is_none(std::fs::read_to_string(self.device(address).join("driver_override")))?;
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && text != NOTHING))
    }

    /// The physical function of a virtual one.
    pub(super) fn physical(&self, address: PciAddress) -> io::Result<Option<PciAddress>> {
        self.linked(&self.device(address).join("physfn"))
    }

    /// The virtual function of this number.
    pub(super) fn virtual_function(&self, pf: PciAddress, index: u32) -> io::Result<Option<PciAddress>> {
        self.linked(&self.device(pf).join(format!("virtfn{index}")))
    }

    /// The number of a virtual function.
    pub(super) fn index(&self, pf: PciAddress, vf: PciAddress) -> io::Result<Option<u32>> {
        for name in names(&self.device(pf))? {
            let number = name.strip_prefix("virtfn").and_then(|number| number.parse().ok());
            if let Some(index) = number
                && self.virtual_function(pf, index)? == Some(vf)
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Whether its driver has made a netdev, in whichever namespace that is: the folder is there for all of them, though
    /// it shows those of ours only.
    pub(super) fn has_netdev(&self, address: PciAddress) -> bool {
        self.device(address).join("net").is_dir()
    }

    /// Whether a driver for PCI is loaded.
    pub(super) fn has_driver(&self, driver: &str) -> bool {
        is_name(driver) && self.driver_folder(driver).is_dir()
    }

    pub(super) fn iommu_group(&self, address: PciAddress) -> io::Result<Option<u32>> {
        let name = link_name(&self.device(address).join("iommu_group"))?;
        Ok(name.and_then(|name| name.parse().ok()))
    }

    /// Whether vfio made the group, because there is no IOMMU.
    pub(super) fn is_unsafe_group(&self, group: u32) -> bool {
        let name = std::fs::read_to_string(self.group(group).join("name")).unwrap_or_default();
        name.trim() == UNSAFE_GROUP
    }

    /// What an IOMMU cannot keep apart from the functions of this group, with each one's driver: all of the group.
    pub(super) fn group_members(&self, group: u32) -> io::Result<Vec<(String, Option<String>)>> {
        let folder = self.group(group).join("devices");
        let driver = |name: String| Ok((name.clone(), link_name(&folder.join(name).join("driver"))?));
        names(&folder)?.into_iter().map(driver).collect()
    }

    /// Whether vfio may do without an IOMMU.
    pub(super) fn allows_unsafe_vfio(&self) -> bool {
        std::fs::read_to_string(self.0.join(UNSAFE_VFIO)).is_ok_and(|text| text.trim() == "Y")
    }

    /// Lets no other driver have it; none: any that knows it.
    pub(super) fn allow_driver(&self, address: PciAddress, driver: Option<&str>) -> io::Result<()> {
        // An empty line takes back what was written before.
        std::fs::write(self.device(address).join("driver_override"), driver.unwrap_or("\n"))
    }

    /// Takes it from its driver.
    pub(super) fn unbind(&self, address: PciAddress) -> io::Result<()> {
        let file = self.device(address).join("driver/unbind");
        missing_is_none(std::fs::write(file, address.to_string())).map(|_| ())
    }

    /// Gives it to a driver, which says here why it does not take it.
    pub(super) fn bind(&self, address: PciAddress, driver: &str) -> io::Result<()> {
        if !is_name(driver) {
            return Err(ErrorKind::InvalidInput.into());
        }
        std::fs::write(self.driver_folder(driver).join("bind"), address.to_string())
    }

    fn device(&self, address: PciAddress) -> PathBuf {
        self.0.join("bus/pci/devices").join(address.to_string())
    }

    fn driver_folder(&self, driver: &str) -> PathBuf {
        self.0.join("bus/pci/drivers").join(driver)
    }

    fn group(&self, group: u32) -> PathBuf {
        self.0.join("kernel/iommu_groups").join(group.to_string())
    }

    fn linked(&self, link: &Path) -> io::Result<Option<PciAddress>> {
        Ok(link_name(link)?.and_then(|name| name.parse().ok()))
    }
}

/// Names of drivers come from records too.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\0', '\n'])
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree as Linux 6.12 has it, with one card: physical function 0000:01:00.0, virtual ones 0000:01:10.0 and .2.
    pub(in super::super) struct Tree(tempfile::TempDir);

    pub(in super::super) const VF: &str = "0000:01:10.2";
    const PF: &str = "0000:01:00.0";

    impl Tree {
        pub(in super::super) fn new() -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for function in [PF, "0000:01:10.0", VF] {
                tree.file(&format!("bus/pci/devices/{function}/driver_override"), "(null)\n");
            }
            tree.link(&format!("bus/pci/devices/{PF}/virtfn0"), "../0000:01:10.0");
            tree.link(&format!("bus/pci/devices/{PF}/virtfn1"), &format!("../{VF}"));
            tree.link(&format!("bus/pci/devices/{VF}/physfn"), &format!("../{PF}"));
            tree
        }

        pub(in super::super) fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.0.path())
        }

        pub(in super::super) fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        pub(in super::super) fn link(&self, path: &str, target: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        /// A function of an IOMMU group.
        pub(in super::super) fn member(&self, group: u32, function: &str, driver: &str) {
            let groups = format!("kernel/iommu_groups/{group}");
            self.link(&format!("{groups}/devices/{function}/driver"), &format!("/x/{driver}"));
            self.link(&format!("bus/pci/devices/{function}/iommu_group"), &format!("/x/{group}"));
        }
    }

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    #[test]
    fn function_when_it_is_virtual_has_its_number_and_its_physical_one() {
        let (_tree, sysfs) = with_sysfs(Tree::new());
        assert_eq!(sysfs.physical(address(VF)).unwrap(), Some(address(PF)));
        assert_eq!(sysfs.physical(address(PF)).unwrap(), None);
        assert_eq!(sysfs.index(address(PF), address(VF)).unwrap(), Some(1));
        assert_eq!(sysfs.virtual_function(address(PF), 1).unwrap(), Some(address(VF)));
        assert_eq!(sysfs.virtual_function(address(PF), 2).unwrap(), None);
        assert!(sysfs.exists(address(VF)) && !sysfs.exists(address("0000:01:10.4")));
    }

    #[test]
    fn driver_when_nothing_is_said_is_none() {
        let (tree, sysfs) = with_sysfs(Tree::new());
        assert_eq!(sysfs.driver(address(VF)).unwrap(), None);
        assert_eq!(sysfs.driver_override(address(VF)).unwrap(), None);
        tree.link(&format!("bus/pci/devices/{VF}/driver"), "/x/igbvf");
        sysfs.allow_driver(address(VF), Some("vfio-pci")).unwrap();
        assert_eq!(sysfs.driver(address(VF)).unwrap().as_deref(), Some("igbvf"));
        assert_eq!(sysfs.driver_override(address(VF)).unwrap().as_deref(), Some("vfio-pci"));
        sysfs.allow_driver(address(VF), None).unwrap();
        assert_eq!(sysfs.driver_override(address(VF)).unwrap(), None);
    }

    #[test]
    fn bind_when_the_name_of_a_driver_leads_elsewhere_refuses() {
        let (_tree, sysfs) = with_sysfs(Tree::new());
        for name in ["", "..", "../../devices", "a/b", "a\n"] {
            assert_eq!(
                sysfs.bind(address(VF), name).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
            assert!(!sysfs.has_driver(name), "{name:?}");
        }
    }

    fn with_sysfs(tree: Tree) -> (Tree, Sysfs) {
        let sysfs = tree.sysfs();
        (tree, sysfs)
    }
}
