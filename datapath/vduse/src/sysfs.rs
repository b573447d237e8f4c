//! Which devices are there, and what can be set about them outside of their file?
//!
//! The settings are files under `/sys/class/vduse/NAME`; a process needs no open device to use them, but mostly root.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::Error;
use crate::name::{DeviceName, FOLDER};

const CLASS: &str = "/sys/class/vduse";
/// The smallest and the largest bounce buffer (`VDUSE_MIN_BOUNCE_SIZE`, `VDUSE_MAX_BOUNCE_SIZE`).
pub const BOUNCE_SIZE_BYTES: std::ops::RangeInclusive<u32> = 1 << 20..=1 << 30;

/// The devices that can be opened here: the files of `/dev/vduse`. In the order of their names; none without the module.
///
/// # Errors
/// [`Error::NoAccess`], [`Error::Kernel`].
pub fn list() -> Result<Vec<DeviceName>, Error> {
    list_in(Path::new(FOLDER))
}

fn list_in(folder: &Path) -> Result<Vec<DeviceName>, Error> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::PermissionDenied => Error::NoAccess { path: folder.to_owned() },
        _ => Error::kernel("list VDUSE devices", Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is none of a device (`control`) is left out.
        let name = entry.map_err(failed)?.file_name().into_string().ok();
        names.extend(name.and_then(|name| DeviceName::new(name).ok()));
    }
    names.sort();
    Ok(names)
}

/// How long the kernel waits for the answer to a request before it declares the device broken, in seconds; 0: for ever. A
/// new device has 30.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Kernel`].
pub fn msg_timeout_s(name: &DeviceName) -> Result<u32, Error> {
    Setting::of_device(name, "msg_timeout").get()
}

/// Sets what [`msg_timeout_s`] says, for requests from now on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NoAccess`], [`Error::Kernel`].
pub fn set_msg_timeout_s(name: &DeviceName, timeout_s: u32) -> Result<(), Error> {
    Setting::of_device(name, "msg_timeout").set(timeout_s.to_string(), "seconds, or 0 for ever")
}

/// The size of the bounce buffer that packets of kernel drivers cross, in bytes. A new device has 64 MiB. Each address space
/// gets an equal part.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Unsupported`] on old kernels (6.12 has it); [`Error::Kernel`].
pub fn bounce_size_bytes(name: &DeviceName) -> Result<u32, Error> {
    Setting::of_device(name, "bounce_size").get()
}

/// Sets what [`bounce_size_bytes`] says, down to whole pages. Possible until the device goes onto the vDPA bus for the first
/// time.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NoAccess`]; [`Error::Setting`] if it is out of [`BOUNCE_SIZE_BYTES`], or too late;
/// [`Error::Unsupported`] on old kernels (6.12 has it); [`Error::Kernel`].
pub fn set_bounce_size_bytes(name: &DeviceName, size_bytes: u32) -> Result<(), Error> {
    let allowed = "1 MiB to 1 GiB, and only before the device has been on the vDPA bus";
    Setting::of_device(name, "bounce_size").set(size_bytes.to_string(), allowed)
}

/// The CPUs that run the driver's callback for a virtqueue's interrupts, in turn.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Unsupported`] on old kernels (6.12 has it), or if there is no such virtqueue; [`Error::Kernel`].
pub fn irq_affinity(name: &DeviceName, index: u32) -> Result<Vec<u32>, Error> {
    let text = Setting::of_queue(name, index).read()?;
    cpus(&text).ok_or(Error::Protocol("a CPU mask that is none"))
}

/// Sets what [`irq_affinity`] says.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NoAccess`]; [`Error::Setting`] if none of `cpus` is there;
/// [`Error::Unsupported`] on old kernels (6.12 has it), or if there is no such virtqueue; [`Error::Kernel`].
pub fn set_irq_affinity(name: &DeviceName, index: u32, cpus: &[u32]) -> Result<(), Error> {
    Setting::of_queue(name, index).set(cpu_mask(cpus), "CPUs of which one at least is online")
}

/// One file of one device.
struct Setting<'a> {
    name: &'a DeviceName,
    knob: &'static str,
    path: PathBuf,
}

impl<'a> Setting<'a> {
    fn of_device(name: &'a DeviceName, knob: &'static str) -> Self {
        Self { name, knob, path: Path::new(CLASS).join(name.as_str()).join(knob) }
    }

    fn of_queue(name: &'a DeviceName, index: u32) -> Self {
        let knob = "irq_cb_affinity";
        Self { name, knob, path: Path::new(CLASS).join(name.as_str()).join(format!("vq{index}")).join(knob) }
    }

    fn read(&self) -> Result<String, Error> {
        std::fs::read_to_string(&self.path).map_err(|error| self.failed(&error, String::new(), ""))
    }

    fn get(&self) -> Result<u32, Error> {
        self.read()?.trim_end().parse().map_err(|_| Error::Protocol("a setting that is no number"))
    }

    fn set(&self, value: String, allowed: &'static str) -> Result<(), Error> {
        std::fs::write(&self.path, &value).map_err(|error| self.failed(&error, value, allowed))
    }

    fn failed(&self, error: &std::io::Error, value: String, allowed: &'static str) -> Error {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        match errno {
            Errno::NOENT if self.device_exists() => {
                Error::Unsupported { what: self.knob, needs: "a newer kernel, or more virtqueues" }
            }
            Errno::NOENT | Errno::NODEV => Error::NotFound(self.name.clone()),
            Errno::ACCESS | Errno::ROFS => Error::NoAccess { path: self.path.clone() },
            Errno::INVAL | Errno::PERM | Errno::RANGE | Errno::OVERFLOW => {
                Error::Setting { name: self.name.clone(), knob: self.knob, value, allowed }
            }
            errno => Error::kernel("use a setting of the VDUSE device", errno),
        }
    }

    fn device_exists(&self) -> bool {
        Path::new(CLASS).join(self.name.as_str()).exists()
    }
}

/// The CPUs of a mask as the kernel prints it: words of 32 bits in hexadecimal, the highest first, with commas.
fn cpus(mask: &str) -> Option<Vec<u32>> {
    let words: Option<Vec<u32>> =
        mask.trim_end().rsplit(',').map(|word| u32::from_str_radix(word, 16).ok()).collect();
    let mut cpus = Vec::new();
    for (base, word) in (0..).step_by(32).zip(words?) {
        cpus.extend((0..32).filter(|bit| word & (1 << bit) != 0).map(|bit| base + bit));
    }
    Some(cpus)
}

/// The inverse of [`cpus`].
fn cpu_mask(cpus: &[u32]) -> String {
    // More than any kernel has: not a number to allocate memory by.
    const MAX_CPUS: u32 = 1 << 16;
    let top = cpus.iter().copied().filter(|cpu| *cpu < MAX_CPUS).max().unwrap_or(0);
    let word = |index: u32| {
        let bits = cpus.iter().filter(|cpu| **cpu < MAX_CPUS && **cpu / 32 == index);
        format!("{:08x}", bits.fold(0u32, |word, cpu| word | 1 << (cpu % 32)))
    };
    (0..=top / 32).rev().map(word).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mask_is_read_as_the_kernel_prints_it() {
        assert_eq!(cpus("3\n"), Some(vec![0, 1]));
        assert_eq!(cpus("1,00000000,80000001\n"), Some(vec![0, 31, 64]));
        assert_eq!(cpus("\n"), None);
        assert_eq!(cpus("x,1"), None);
        assert_eq!(cpu_mask(&[0, 31, 64]), "00000001,00000000,80000001");
        assert_eq!(cpu_mask(&[]), "00000000");
        assert_eq!(cpu_mask(&[u32::MAX, 1]), "00000002");
    }

    #[test]
    fn a_device_that_is_not_there_has_no_settings() {
        let name = DeviceName::new("there-is-no-such-device").unwrap();
        assert!(matches!(msg_timeout_s(&name), Err(Error::NotFound(_))));
        assert!(matches!(set_bounce_size_bytes(&name, 1 << 20), Err(Error::NotFound(_))));
        assert!(matches!(irq_affinity(&name, 0), Err(Error::NotFound(_))));
    }

    #[test]
    fn a_folder_lists_the_devices_in_it_and_no_folder_none() {
        let folder = std::env::temp_dir().join(format!("vduse-list-{}", std::process::id()));
        assert!(list_in(&folder).unwrap().is_empty());
        std::fs::create_dir(&folder).unwrap();
        for file in ["control", "b", "a"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
        let names: Vec<String> = list_in(&folder).unwrap().iter().map(ToString::to_string).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["a", "b"]);
    }

    proptest! {
        #[test]
        fn a_mask_keeps_its_cpus(mut wanted in proptest::collection::btree_set(0u32..300, 0..20)) {
            let list: Vec<u32> = std::mem::take(&mut wanted).into_iter().collect();
            prop_assert_eq!(cpus(&cpu_mask(&list)), Some(list));
        }
    }
}
