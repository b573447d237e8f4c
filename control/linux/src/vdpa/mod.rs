//! How do devices come onto the vDPA bus, get a driver, and go again?
//!
//! `message` and `family`: the generic netlink family `vdpa`, which makes and removes devices and lists them and who can make
//! them. `bus`: sysfs, where drivers are bound. `netdev`: from a device to the pod's interface. `limit`: what keeps a kernel
//! that waits for somebody from keeping us.
mod bus;
mod family;
mod limit;
mod message;
pub(crate) mod netdev;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reconcile::kernel::{KernelError, ManagementDevice, NewVdpaDevice, Ownership, VdpaDevice, VdpaDriver};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use vduse::DeviceName;
use wire::MacAddr;

use bus::Buses;
use family::{Family, Refusal};
use limit::within;
use message::{Attribute, Command, Message};

use crate::refused;

/// The class of network devices (virtio 1.2 §5, VIRTIO_ID_NET).
const NET: u32 = 1;
/// How long a device of VDUSE that goes may let the kernel wait. Whoever serves it answers at once, or not at all.
const LAST_ANSWER_S: u32 = 1;
/// The last reference to a device of the bus goes a moment after the device.
const DESTROY_TRIES: u32 = 40;
const DESTROY_EVERY: Duration = Duration::from_millis(25);

/// Who can make devices, and of which kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// Who.
    pub management: ManagementDevice,
    /// A bit for each class of virtio devices, by its number.
    pub classes: u64,
    /// Virtqueues that a device of it has at most, where it says so.
    pub max_queues: Option<u32>,
    /// Virtio's feature bits that a device of it may have, where it says so.
    pub features: Option<u64>,
}

impl Maker {
    /// Whether it makes network devices.
    pub fn makes_net(&self) -> bool {
        self.classes & (1 << NET) != 0
    }
}

/// A device that the kernel lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Who made it.
    pub management: ManagementDevice,
    /// Its class, by virtio's number; 1: network.
    pub class: u32,
    /// Its virtqueues.
    pub max_queues: u32,
}

/// Everybody on this node who can make devices of the vDPA bus: VDUSE, and functions of cards.
///
/// # Errors
/// The kernel does not tell; it does so in the node's own network namespace only.
pub fn makers() -> Result<Vec<Maker>, KernelError> {
    list("list the vDPA management devices", Command::GET_MANAGEMENT, maker)
}

/// All devices of the vDPA bus that were made by request.
///
/// # Errors
/// As [`makers`].
pub fn devices() -> Result<Vec<Listed>, KernelError> {
    list("list the vDPA devices", Command::GET_DEVICE, listed)
}

fn list<T: Send + 'static>(
    doing: &'static str,
    command: Command,
    read: fn(&Message) -> Option<T>,
) -> Result<Vec<T>, KernelError> {
    let ask = move || {
        let answers = Family::open().and_then(|family| family.list(Message::new(command)));
        Ok(answers.map_err(|refusal| explain(doing, &refusal))?.iter().filter_map(read).collect())
    };
    within(doing, ask)
}

fn maker(message: &Message) -> Option<Maker> {
    Some(Maker {
        management: message.management()?,
        classes: message.find(|attribute| match attribute {
            Attribute::SupportedClasses(classes) => Some(*classes),
            _ => None,
        })?,
        max_queues: message.find(|attribute| match attribute {
            Attribute::ManagementMaxQueues(queues) => Some(*queues),
            _ => None,
        }),
        features: message.find(|attribute| match attribute {
            Attribute::SupportedFeatures(features) => Some(*features),
            _ => None,
        }),
    })
}

fn listed(message: &Message) -> Option<Listed> {
    let number = |pick: fn(&Attribute) -> Option<u32>| message.find(pick);
    Some(Listed {
        name: message.find(|attribute| match attribute {
            Attribute::DeviceName(name) => Some(name.clone()),
            _ => None,
        })?,
        management: message.management()?,
        class: number(|attribute| match attribute {
            Attribute::DeviceId(class) => Some(*class),
            _ => None,
        })?,
        max_queues: number(|attribute| match attribute {
            Attribute::MaxQueues(queues) => Some(*queues),
            _ => None,
        })?,
    })
}

/// Whether devices of VDUSE can be made that `driver` drives.
pub(crate) fn can_vduse(driver: VdpaDriver) -> Result<(), String> {
    vduse::Control::open().map_err(|error| match error {
        vduse::Error::NoModule => {
            "/dev/vduse/control is missing: modprobe vduse (Linux 6.9 or newer)".to_owned()
        }
        other => other.to_string(),
    })?;
    let buses = Buses::of_kernel();
    let missing = |bus: &str, driver: &str| match buses.has_driver(bus, driver) {
        true => Ok(()),
        false => Err(format!("the driver {driver} is missing: modprobe {driver}")),
    };
    missing("vdpa", driver.as_str())?;
    if driver == VdpaDriver::Virtio {
        missing("virtio", "virtio_net")?;
    }
    vduse_makes_net()
}

/// Whether the kernel's VDUSE knows network devices, which it learned later than VDUSE itself.
fn vduse_makes_net() -> Result<(), String> {
    // Once known, it is so: the kernel is asked under the lock that other pods' devices are made under.
    static KNOWN: AtomicBool = AtomicBool::new(false);
    if KNOWN.load(Ordering::Relaxed) {
        return Ok(());
    }
    let makers = makers().map_err(|error| error.to_string())?;
    let vduse = makers.into_iter().find(|maker| maker.management == ManagementDevice::vduse());
    if !vduse.is_some_and(|maker| maker.makes_net()) {
        return Err("this kernel's VDUSE has no network devices: they need Linux 6.9 or newer".to_owned());
    }
    KNOWN.store(true, Ordering::Relaxed);
    Ok(())
}

pub(crate) fn device(name: &str) -> Result<Option<VdpaDevice>, KernelError> {
    Buses::of_kernel()
        .device(name)
        .map_err(|error| refused(format!("vDPA device {name}: look at it"), &error))
}

pub(crate) fn put(device: &NewVdpaDevice) -> Result<(), KernelError> {
    let doing = format!("vDPA device {}: put it onto the bus, by {}", device.name, device.management);
    if self::device(&device.name)?.is_some() {
        return Ok(());
    }
    let mut request = Message::new(Command::NEW_DEVICE).of(&device.management).named(&device.name);
    if let Some(mac) = device.mac {
        request = request.with(Attribute::Mac(mac));
    }
    if let Some(mtu) = device.mtu_bytes {
        request = request.with(Attribute::Mtu(mtu));
    }
    let management = device.management.clone();
    within(&doing.clone(), move || match Family::open().and_then(|family| family.ask(request)) {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.is(Errno::EXIST) => Ok(()),
        Err(refusal) => Err(explain_put(&doing, &management, &refusal)),
    })
}

pub(crate) fn delete(name: &str) -> Result<(), KernelError> {
    let Some(found) = device(name)? else { return Ok(()) };
    let doing = format!("vDPA device {name}: take it off the bus");
    let request = Message::new(Command::DELETE_DEVICE).named(name);
    let name = name.to_owned();
    within(&doing.clone(), move || {
        hurry(&name);
        refuse_while_open(&doing, found.path.as_deref())?;
        match Family::open().and_then(|family| family.ask(request)) {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is(Errno::NODEV) => Ok(()),
            Err(refusal) => Err(explain(&doing, &refusal)),
        }
    })
}

pub(crate) fn bind(name: &str, driver: VdpaDriver) -> Result<(), KernelError> {
    let doing = format!("vDPA device {name}: let {} drive it", driver.as_str());
    let gone = || KernelError::Refused { doing: doing.clone(), reason: "it is gone from the bus".to_owned() };
    let found = device(name)?.ok_or_else(gone)?;
    if found.driver == Some(driver) {
        return Ok(());
    }
    let buses = Buses::of_kernel();
    if !buses.has_driver("vdpa", driver.as_str()) {
        let reason = format!("the driver is missing: modprobe {}", driver.as_str());
        return Err(KernelError::Refused { doing, reason });
    }
    let name = name.to_owned();
    within(&doing.clone(), move || {
        refuse_while_open(&doing, found.path.as_deref())?;
        buses.bind(&name, driver).map_err(|error| refused_bind(doing, &error))
    })
}

/// Gives a device to the driver, or to none, and allows that one, or any. Done anew where it is so already, so that nothing of
/// the device's use is left.
pub(crate) fn rebind(
    name: &str,
    driver: Option<VdpaDriver>,
    allowed: Option<&str>,
) -> Result<(), KernelError> {
    let doing = format!("vDPA device {name}: give it back to the driver that it had");
    let Some(found) = device(name)? else { return Ok(()) };
    let (name, allowed) = (name.to_owned(), allowed.map(str::to_owned));
    within(&doing.clone(), move || {
        refuse_while_open(&doing, found.path.as_deref())?;
        let bound = Buses::of_kernel().rebind(&name, driver, allowed.as_deref());
        bound.map_err(|error| refused_bind(doing, &error))
    })
}

/// The one driver that may have a device; none: any.
pub(crate) fn driver_override(name: &str) -> Result<Option<String>, KernelError> {
    let allowed = Buses::of_kernel().driver_override(name);
    allowed.map_err(|error| refused(format!("vDPA device {name}: look at it"), &error))
}

/// The station address in the configuration of a device; none: it has none.
pub(crate) fn mac(name: &str) -> Result<Option<MacAddr>, KernelError> {
    let doing = format!("vDPA device {name}: read its configuration");
    let request = Message::new(Command::GET_CONFIG).named(name);
    within(&doing.clone(), move || {
        let answers = Family::open().and_then(|family| family.ask(request));
        let answers = answers.map_err(|refusal| explain(&doing, &refusal))?;
        let mac = |message: &Message| {
            message.find(|attribute| match attribute {
                Attribute::Mac(mac) => Some(*mac),
                _ => None,
            })
        };
        Ok(answers.iter().find_map(mac).filter(|mac| mac.is_unicast()))
    })
}

pub(crate) fn own(name: &str, ownership: Ownership) -> Result<PathBuf, KernelError> {
    let doing = format!("vDPA device {name}: hand its file to the pod");
    let none = || KernelError::Refused {
        doing: doing.clone(),
        reason: "vhost_vdpa has made none: the device is gone or broken, see the switch's log".to_owned(),
    };
    let path = device(name)?.and_then(|device| device.path).ok_or_else(none)?;
    let (uid, gid) = (Uid::from_raw(ownership.uid), Gid::from_raw(ownership.gid));
    let owned = rustix::fs::chown(&path, Some(uid), Some(gid))
        .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(ownership.mode & 0o777)));
    owned.map_err(|errno| refused(format!("{doing}: {}", path.display()), &errno.into()))?;
    Ok(path)
}

pub(crate) fn is_vduse_broken(name: &str) -> Result<bool, KernelError> {
    let Ok(name) = DeviceName::new(name) else { return Ok(false) };
    match vduse::Device::open(&name).and_then(|device| device.is_broken()) {
        Err(vduse::Error::NotFound(_) | vduse::Error::InUse(_) | vduse::Error::NoModule) => Ok(false),
        answer => answer.map_err(|error| KernelError::Refused {
            doing: format!("VDUSE device {name}: look at it"),
            reason: error.to_string(),
        }),
    }
}

pub(crate) fn destroy_vduse(name: &str) -> Result<(), KernelError> {
    let refuse = |error: vduse::Error| KernelError::Refused {
        doing: format!("VDUSE device {name}: destroy it"),
        reason: match error {
            vduse::Error::Busy(_) => {
                "the switch, or another process, still has it open; it goes when that one has ended \
                                      (look at `fuser /dev/vduse/*`)"
                    .to_owned()
            }
            other => other.to_string(),
        },
    };
    // Without the module there is nothing; a name that is none names nothing.
    let Ok(device) = DeviceName::new(name) else { return Ok(()) };
    let control = match vduse::Control::open() {
        Err(vduse::Error::NoModule) => return Ok(()),
        control => control.map_err(refuse)?,
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match control.destroy_dev(&device) {
            Ok(()) | Err(vduse::Error::NotFound(_)) => return Ok(()),
            Err(vduse::Error::Busy(_)) if tries < DESTROY_TRIES => std::thread::sleep(DESTROY_EVERY),
            Err(error) => return Err(refuse(error)),
        }
    }
}

/// Lets a device that is to go not be waited for: nothing is lost by its being broken.
fn hurry(name: &str) {
    if let Ok(device) = DeviceName::new(name) {
        // One that is not of VDUSE has no such setting; one that cannot be set is waited for longer.
        let _ = vduse::sysfs::set_msg_timeout_s(&device, LAST_ANSWER_S);
    }
}

/// The kernel would wait, under the lock of the whole bus, until the program closes the file: for ever, maybe. One
/// descriptor at a time is allowed, so whoever can open it is alone.
pub(crate) fn refuse_while_open(doing: &str, path: Option<&Path>) -> Result<(), KernelError> {
    let Some(path) = path else { return Ok(()) };
    match rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::BUSY) => Err(KernelError::Refused {
            doing: doing.to_owned(),
            reason: format!("a program has {0} open: end it (look at `fuser {0}`)", path.display()),
        }),
        // What else keeps us from opening it keeps nobody from removing it.
        _ => Ok(()),
    }
}

fn refused_bind(doing: String, error: &std::io::Error) -> KernelError {
    // ENOTSUPP of the kernel (`linux/errno.h`), which no libc knows.
    const NOT_SUPPORTED: i32 = 524;
    match error.raw_os_error() {
        Some(NOT_SUPPORTED) => KernelError::Refused {
            doing,
            reason: "the device needs an IOMMU for that: switch it on (intel_iommu=on, amd_iommu=on)"
                .to_owned(),
        },
        _ => refused(doing, error),
    }
}

fn explain_put(doing: &str, management: &ManagementDevice, refusal: &Refusal) -> KernelError {
    let remedy = match refusal {
        Refusal::Errno(Errno::NODEV, _) if *management == ManagementDevice::vduse() => {
            "; VDUSE is gone: modprobe vduse"
        }
        Refusal::Errno(Errno::NODEV, _) => "; there is no such management device: see `vdpa mgmtdev show`",
        Refusal::Errno(Errno::INVAL, _) if *management == ManagementDevice::vduse() => {
            "; the switch has no such device of VDUSE ready: see its log"
        }
        Refusal::Errno(Errno::OPNOTSUPP, _) => "; the management device does not take what was asked for",
        _ => return explain(doing, refusal),
    };
    KernelError::Refused { doing: doing.to_owned(), reason: format!("{refusal}{remedy}") }
}

fn explain(doing: &str, refusal: &Refusal) -> KernelError {
    let remedy = match refusal {
        Refusal::Errno(Errno::NOENT, _) => {
            "; the vDPA bus is missing (modprobe vdpa), or this is not the node's own network namespace, where alone the \
             kernel answers: run the agent with the node's network"
        }
        Refusal::Errno(Errno::PERM | Errno::ACCESS, _) => {
            "; CAP_NET_ADMIN in the initial user namespace is needed"
        }
        _ => "",
    };
    KernelError::Refused { doing: doing.to_owned(), reason: format!("{refusal}{remedy}") }
}
