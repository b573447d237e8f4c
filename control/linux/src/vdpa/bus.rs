//! What is on the vDPA bus, and how is a device's driver changed? Read and written in sysfs, which waits for nobody.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use reconcile::kernel::{VdpaDevice, VdpaDriver};

use crate::sysfs::{link_name, missing_is_none, names};

const DRIVERS: [VdpaDriver; 2] = [VdpaDriver::Virtio, VdpaDriver::Vhost];
/// Names of what the drivers make: a virtio device, and the device of a file in `/dev`.
const VIRTIO: &str = "virtio";
const VHOST: &str = "vhost-vdpa-";

/// What the file of the one driver says where there is none.
const NOTHING: &str = "(null)";

/// The folder of the system's buses.
#[derive(Debug, Clone)]
pub(crate) struct Buses(PathBuf);

impl Buses {
    /// Those of this kernel.
    pub(crate) fn of_kernel() -> Self {
        Self(PathBuf::from("/sys/bus"))
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// The device of the vDPA bus, as it is.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub(crate) fn device(&self, name: &str) -> io::Result<Option<VdpaDevice>> {
        let Some(folder) = self.folder(name)? else { return Ok(None) };
        let driver = link_name(&folder.join("driver"))?;
        let driver = DRIVERS.into_iter().find(|known| driver.as_deref() == Some(known.as_str()));
        Ok(Some(VdpaDevice { driver, virtio: virtio(&folder, true)?, path: file(&folder)? }))
    }

    /// The virtio device of a vDPA device, and whether a driver has made a netdev of it.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub(crate) fn virtio(&self, name: &str) -> io::Result<Option<(String, bool)>> {
        let Some(folder) = self.folder(name)? else { return Ok(None) };
        match virtio(&folder, true)? {
            Some(driven) => Ok(Some((driven, true))),
            None => Ok(virtio(&folder, false)?.map(|undriven| (undriven, false))),
        }
    }

    /// Whether a driver of a bus is loaded.
    pub(crate) fn has_driver(&self, bus: &str, driver: &str) -> bool {
        self.0.join(bus).join("drivers").join(driver).is_dir()
    }

    /// Makes `driver` the one that may drive the device, and drives it with that one. May wait for whoever serves it.
    ///
    /// # Errors
    /// The device or driver is not there, or one of them refuses.
    pub(crate) fn bind(&self, name: &str, driver: VdpaDriver) -> io::Result<()> {
        let folder = self.folder(name)?.ok_or(ErrorKind::NotFound)?;
        let before = link_name(&folder.join("driver"))?;
        if before.as_deref() == Some(driver.as_str()) {
            return Ok(());
        }
        // Else the kernel would let any driver have it again.
        std::fs::write(folder.join("driver_override"), driver.as_str())?;
        if before.is_some() {
            std::fs::write(folder.join("driver/unbind"), name)?;
        }
        std::fs::write(self.0.join("vdpa/drivers").join(driver.as_str()).join("bind"), name)
    }

    /// As [`Buses::bind`], but takes it from its driver in any case, and allows `allowed` only in the end; none: no driver, and
    /// any.
    ///
    /// # Errors
    /// As [`Buses::bind`].
    pub(crate) fn rebind(
        &self,
        name: &str,
        driver: Option<VdpaDriver>,
        allowed: Option<&str>,
    ) -> io::Result<()> {
        let folder = self.folder(name)?.ok_or(ErrorKind::NotFound)?;
        if link_name(&folder.join("driver"))?.is_some() {
            std::fs::write(folder.join("driver/unbind"), name)?;
        }
        if let Some(driver) = driver {
            self.bind(name, driver)?;
        }
        // An empty line takes back what was written before.
        std::fs::write(folder.join("driver_override"), allowed.unwrap_or("\n"))
    }

    /// The one driver that may have the device; none: any.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub(crate) fn driver_override(&self, name: &str) -> io::Result<Option<String>> {
        let Some(folder) = self.folder(name)? else { return Ok(None) };
        let text = missing_is_none(std::fs::read_to_string(folder.join("driver_override")))?;
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && text != NOTHING))
    }

    /// The real folder of a device, if there is one.
    fn folder(&self, name: &str) -> io::Result<Option<PathBuf>> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Ok(None);
        }
        missing_is_none(self.0.join("vdpa/devices").join(name).canonicalize())
    }
}

/// The virtio device of a vDPA device: below it, or below the function of a card that it belongs to (virtio_vdpa makes it a
/// child of whoever does the DMA). `driven`: one that a driver has.
fn virtio(folder: &Path, driven: bool) -> io::Result<Option<String>> {
    let wanted = |folder: &Path, name: &String| {
        is_numbered(name, VIRTIO) && folder.join(name).join("driver").exists() == driven
    };
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        let found: Vec<_> = names(folder)?.into_iter().filter(|name| wanted(folder, name)).collect();
        // Of several below one function, none is known to be this device's.
        if let [one] = found.as_slice() {
            return Ok(Some(one.clone()));
        }
    }
    Ok(None)
}

fn file(folder: &Path) -> io::Result<Option<PathBuf>> {
    let name = names(folder)?.into_iter().find(|name| is_numbered(name, VHOST));
    Ok(name.map(|name| Path::new("/dev").join(name)))
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    let number = name.strip_prefix(prefix).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree as Linux 6.12 has it: `devices/FOLDER` is the device's real folder.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(name: &str, folder: &str) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            tree.dir(&format!("devices/{folder}"));
            tree.dir("bus/vdpa/devices");
            tree.link(&format!("bus/vdpa/devices/{name}"), &tree.path(&format!("devices/{folder}")));
            tree
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn dir(&self, path: &str) {
            std::fs::create_dir_all(self.path(path)).unwrap();
        }

        fn link(&self, path: &str, target: &Path) {
            symlink(target, self.path(path)).unwrap();
        }

        fn driver(&self, folder: &str, bus: &str, driver: &str) {
            let driver = format!("bus/{bus}/drivers/{driver}");
            self.dir(&driver);
            self.link(&format!("devices/{folder}/driver"), &self.path(&driver));
        }

        fn buses(&self) -> Buses {
            Buses::at(&self.path("bus"))
        }
    }

    #[test]
    fn device_when_virtio_drives_one_of_vduse_names_its_virtio_device() {
        let tree = Tree::new("mr-a-1", "vduse/mr-a-1");
        tree.driver("vduse/mr-a-1", "vdpa", "virtio_vdpa");
        tree.dir("devices/vduse/mr-a-1/virtio3/net/eth1");
        let undriven = VdpaDevice { driver: Some(VdpaDriver::Virtio), ..VdpaDevice::default() };
        assert_eq!(tree.buses().device("mr-a-1").unwrap(), Some(undriven.clone()));
        assert_eq!(tree.buses().virtio("mr-a-1").unwrap(), Some(("virtio3".to_owned(), false)));
        tree.driver("vduse/mr-a-1/virtio3", "virtio", "virtio_net");
        let driven = VdpaDevice { virtio: Some("virtio3".to_owned()), ..undriven };
        assert_eq!(tree.buses().device("mr-a-1").unwrap(), Some(driven));
        assert!(
            tree.buses().has_driver("virtio", "virtio_net") && !tree.buses().has_driver("vdpa", "vhost_vdpa")
        );
    }

    #[test]
    fn device_when_it_is_of_a_card_finds_its_virtio_device_beside_it() {
        let tree = Tree::new("vdpa0", "pci0/0000:01:00.1/vdpa0");
        tree.driver("pci0/0000:01:00.1/vdpa0", "vdpa", "virtio_vdpa");
        tree.dir("devices/pci0/0000:01:00.1/virtio5");
        tree.driver("pci0/0000:01:00.1/virtio5", "virtio", "virtio_net");
        let found = tree.buses().device("vdpa0").unwrap().unwrap();
        assert_eq!(found.virtio.as_deref(), Some("virtio5"));
        tree.dir("devices/pci0/0000:01:00.1/virtio6");
        tree.driver("pci0/0000:01:00.1/virtio6", "virtio", "virtio_net");
        assert_eq!(tree.buses().device("vdpa0").unwrap().unwrap().virtio, None, "one of two");
    }

    #[test]
    fn device_when_vhost_drives_it_names_its_file() {
        let tree = Tree::new("mr-a-1", "vduse/mr-a-1");
        tree.driver("vduse/mr-a-1", "vdpa", "vhost_vdpa");
        tree.dir("devices/vduse/mr-a-1/vhost-vdpa-12");
        let found = tree.buses().device("mr-a-1").unwrap().unwrap();
        assert_eq!((found.driver, found.path), (Some(VdpaDriver::Vhost), Some("/dev/vhost-vdpa-12".into())));
    }

    #[test]
    fn rebind_when_a_device_is_lent_gives_it_to_its_driver_again_and_allows_any() {
        let tree = Tree::new("vdpa0", "vdpa0");
        tree.driver("vdpa0", "vdpa", "vhost_vdpa");
        tree.dir("bus/vdpa/drivers/virtio_vdpa");
        let file = |path: &str| std::fs::read_to_string(tree.path(path)).unwrap_or_default();
        let allow = |text: &str| std::fs::write(tree.path("devices/vdpa0/driver_override"), text).unwrap();
        for (text, allowed) in [("(null)\n", None), ("\n", None), ("vhost_vdpa\n", Some("vhost_vdpa"))] {
            allow(text);
            assert_eq!(tree.buses().driver_override("vdpa0").unwrap().as_deref(), allowed, "{text:?}");
        }
        tree.buses().rebind("vdpa0", Some(VdpaDriver::Virtio), None).unwrap();
        assert_eq!(file("bus/vdpa/drivers/vhost_vdpa/unbind"), "vdpa0");
        assert_eq!(file("bus/vdpa/drivers/virtio_vdpa/bind"), "vdpa0");
        assert_eq!(tree.buses().driver_override("vdpa0").unwrap(), None);
        tree.buses().rebind("vdpa0", None, Some("vhost_vdpa")).unwrap();
        assert_eq!(tree.buses().driver_override("vdpa0").unwrap().as_deref(), Some("vhost_vdpa"));
        assert!(tree.buses().rebind("../vdpa0", None, None).is_err());
    }

    #[test]
    fn device_when_it_is_not_there_or_no_name_is_none() {
        let tree = Tree::new("mr-a-1", "vduse/mr-a-1");
        for name in ["mr-a-2", "", "..", "../devices", "a/b", "."] {
            assert_eq!(tree.buses().device(name).unwrap(), None, "{name:?}");
        }
        let strange = VdpaDevice::default();
        tree.driver("vduse/mr-a-1", "vdpa", "another_driver");
        assert_eq!(tree.buses().device("mr-a-1").unwrap(), Some(strange));
    }
}
