//! What is a machine of the VM lab made of? QEMU's arguments, the hardware of each shape, and the folder it shares with
//! the host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::run::{root, target_folder};

/// The guest's memory, of which a quarter is huge pages, for DPDK.
const MEMORY_MIB: u32 = 2048;
const HUGE_PAGES: u32 = 256;
/// A busy host is late with the interrupts by which the kernel tries its timer, and the kernel takes that for a broken one.
const TIMER: &str = "no_timer_check";
/// Lines of the guest's console in a report: an oops and what came before it.
const CONSOLE_LINES: usize = 80;

/// What every machine has: emulated processors, and a console on our standard streams.
const BASE: &str = "
    -nodefaults -no-user-config -display none -no-reboot
    -accel tcg,thread=multi -cpu max -smp 2
    -device virtio-serial-pci -chardev stdio,id=words,signal=off -device virtconsole,chardev=words
";
/// Cards with virtual functions want a port of their own; vfio wants an IOMMU that remaps interrupts.
const IGB: &str = "
    -machine q35,kernel-irqchip=split
    -device intel-iommu,intremap=on,caching-mode=on
    -netdev hubport,id=wire0,hubid=0 -netdev hubport,id=wire1,hubid=0
    -netdev hubport,id=wire2,hubid=1 -netdev hubport,id=wire3,hubid=1
    -device pcie-root-port,id=slot0,slot=0 -device pcie-root-port,id=slot1,slot=1
    -device igb,bus=slot0,netdev=wire0,mac=02:00:00:00:01:00
    -device igb,bus=slot1,netdev=wire1,mac=02:00:00:00:01:01
    -device virtio-net-pci,netdev=wire2,mac=02:00:00:00:01:02,disable-legacy=on,iommu_platform=on
    -device virtio-net-pci,netdev=wire3,mac=02:00:00:00:01:03,disable-legacy=on,iommu_platform=on
";

/// What hardware a machine has. Each is a test target of package `vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// No special hardware
    Plain,
    /// Two igb cards (SR-IOV) on one wire, two virtio cards on another, behind an IOMMU
    Igb,
}

impl Shape {
    /// The name of its test target.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Igb => "igb",
        }
    }

    fn hardware(self) -> &'static str {
        match self {
            Self::Plain => "-machine q35",
            Self::Igb => IGB,
        }
    }

    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Igb => "intel_iommu=on",
        }
    }
}

/// A machine, not started, and the folder that its guest shares with the host.
pub(crate) struct Machine {
    pub(crate) shape: Shape,
    share: PathBuf,
    /// Held: one run at a time has the folder.
    _lock: File,
}

impl Machine {
    /// The machine of a shape, with an empty folder. Waits until no other run has it.
    pub(crate) fn new(shape: Shape) -> Result<Machine> {
        let archive = root().join(".lab/vm/lab.cpio");
        ensure!(archive.exists(), "{} is missing: run cargo xtask prepare as root", archive.display());
        let share = std::path::absolute(target_folder())?.join("vm").join(shape.name());
        fs::create_dir_all(&share).context("the folder that the guest shares")?;
        let lock = File::create(share.with_extension("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("another run has the machine {}: waiting for its end", shape.name());
            lock.lock()?;
        }
        fs::remove_dir_all(&share)?;
        fs::create_dir(&share)?;
        Ok(Machine { shape, share, _lock: lock })
    }

    /// What the guest does (bash), as its first process.
    pub(crate) fn write_command(&self, script: &str) -> Result<()> {
        fs::write(self.share.join("command"), script).context("the guest's command")
    }

    /// The kernel's console.
    fn console(&self) -> PathBuf {
        self.share.join("console")
    }

    /// Where QEMU's own words go.
    pub(crate) fn log(&self) -> PathBuf {
        self.share.join("qemu.log")
    }

    /// QEMU. The kernel kills it when the thread that started it ends.
    pub(crate) fn qemu(&self) -> Command {
        let lab = root().join(".lab/vm");
        let (shape, hardware) = (self.shape.name(), self.shape.hardware());
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        command.args([BASE, hardware].iter().flat_map(|words| words.split_whitespace()));
        command.arg("-m").arg(format!("{MEMORY_MIB}M"));
        command.arg("-kernel").arg(lab.join("vmlinuz")).arg("-initrd").arg(lab.join("lab.cpio"));
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet panic=-1 oops=panic {TIMER} hugepages={HUGE_PAGES} millrace.lab={shape} {}",
            self.shape.parameters()
        ));
        command.arg("-serial").arg(format!("file:{}", value(&self.console())));
        for (tag, folder, options) in [
            ("root", Path::new("/"), "readonly=on,multidevs=remap"),
            ("modules", &lab.join("kernel/lib/modules"), "readonly=on"),
            ("share", &self.share, "readonly=off"),
        ] {
            let folder = value(folder);
            command
                .arg("-virtfs")
                .arg(format!("local,path={folder},mount_tag={tag},security_model=none,{options}"));
        }
        command
    }

    /// What QEMU said, and the end of what the guest's kernel did.
    pub(crate) fn last_words(&self) -> String {
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\r', "");
        let console = read(self.console());
        let skip = console.lines().count().saturating_sub(CONSOLE_LINES);
        let console: Vec<&str> = console.lines().skip(skip).collect();
        format!("QEMU said:\n{}its console:\n{}", read(self.log()), console.join("\n"))
    }
}

/// A path as a value among QEMU's options, where a comma is written twice.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
