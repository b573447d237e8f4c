//! A virtual machine with a stock Debian kernel, under QEMU's software emulation: what would a real guest do with our port?
//!
//! `testing/lab/vm/prepare` puts the kernel and an initramfs of busybox and drivers into `.lab/vm`. A test appends its
//! script as a second archive, which the kernel unpacks over the first, and reads the guest's console.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::Process;
use crate::require::{checkout, program};

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// What the guest runs (`sh`); its exit status ends the machine.
    pub script: String,
    /// Guest memory, a memfd that QEMU shares with the switch.
    pub memory_mib: u32,
    /// vhost-user network cards, eth0 first.
    pub cards: Vec<Card>,
}

/// A virtio network card whose other end is a vhost-user socket.
#[derive(Debug, Clone)]
pub struct Card {
    /// The socket.
    pub socket: PathBuf,
    /// Who makes the socket.
    pub role: CardRole,
    /// The card's address, as text.
    pub mac: String,
    /// Queue pairs.
    pub queues: u16,
}

/// Who makes a card's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardRole {
    /// The switch does; QEMU connects, and again when the switch comes back.
    Connect,
    /// QEMU does, and waits for the switch.
    Listen,
}

/// A running machine; killed when it is dropped.
#[derive(Debug)]
pub struct Vm {
    qemu: Process,
    console: PathBuf,
    _folder: TempDir,
}

/// Whether machines can be started here.
///
/// # Errors
/// What is missing.
pub fn vm_ready() -> Result<(), String> {
    program("qemu-system-x86_64")?;
    for file in ["vmlinuz", "initramfs.cpio"] {
        let path = prepared().join(file);
        if !path.exists() {
            return Err(format!("{} is missing: run cargo xtask prepare as root", path.display()));
        }
    }
    Ok(())
}

fn prepared() -> PathBuf {
    checkout().join(".lab/vm")
}

impl Vm {
    /// Starts a machine.
    ///
    /// # Errors
    /// Files or QEMU could not be had; see [`vm_ready`].
    pub fn boot(spec: &VmSpec) -> io::Result<Vm> {
        let folder = TempDir::with_prefix("millrace-vm-")?;
        let console = folder.path().join("console");
        let initrd = folder.path().join("initramfs");
        let mut archive = std::fs::read(prepared().join("initramfs.cpio"))?;
        archive.extend(cpio("script", spec.script.as_bytes()));
        archive.extend(cpio("TRAILER!!!", &[]));
        std::fs::write(&initrd, archive)?;
        let qemu_log = folder.path().join("qemu.log");
        let qemu = Process::start("qemu-system-x86_64", arguments(spec, &initrd, &console), &qemu_log)?;
        Ok(Vm { qemu, console, _folder: folder })
    }

    /// Everything the guest has printed.
    pub fn console(&self) -> String {
        read(&self.console)
    }

    /// Waits until the guest has printed `text`.
    ///
    /// # Errors
    /// It died or time ran out first: with its console, and with what QEMU said.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> io::Result<()> {
        let Self { qemu, console, .. } = self;
        let printed = || read(console).contains(text);
        qemu.wait_until(&format!("the guest printed {text:?}"), patience, printed)
            .map_err(|error| io::Error::other(format!("{error}\nthe guest's console:\n{}", read(console))))
    }
}

fn read(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

/// QEMU's command line.
fn arguments(spec: &VmSpec, initrd: &Path, console: &Path) -> Vec<String> {
    let memory = spec.memory_mib;
    let machine = [
        "-nodefaults -no-user-config -display none -no-reboot".to_owned(),
        "-accel tcg,thread=multi -cpu max -smp 1".to_owned(),
        format!("-m {memory}M -object memory-backend-memfd,id=mem,size={memory}M,share=on"),
        "-machine q35,memory-backend=mem".to_owned(),
    ];
    let mut args: Vec<String> =
        machine.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect();
    let kernel = prepared().join("vmlinuz");
    args.extend([
        "-kernel".into(),
        kernel.display().to_string(),
        "-initrd".into(),
        initrd.display().to_string(),
    ]);
    args.extend(["-append".into(), "console=ttyS0 quiet panic=-1".into()]);
    args.extend(["-serial".into(), format!("file:{}", console.display())]);
    args.extend(spec.cards.iter().enumerate().flat_map(|(number, card)| card_arguments(number, card)));
    args
}

fn card_arguments(number: usize, card: &Card) -> Vec<String> {
    let path = card.socket.display();
    let role = match card.role {
        CardRole::Connect => ",reconnect-ms=200",
        CardRole::Listen => ",server=on,wait=off",
    };
    let (queues, vectors) = (card.queues, 2 * card.queues + 2);
    let multiqueue = if queues > 1 { format!(",mq=on,vectors={vectors}") } else { String::new() };
    vec![
        "-chardev".into(),
        format!("socket,id=vu{number},path={path}{role}"),
        "-netdev".into(),
        format!("vhost-user,id=n{number},chardev=vu{number},queues={queues}"),
        "-device".into(),
        format!("virtio-net-pci,netdev=n{number},mac={}{multiqueue}", card.mac),
    ]
}

/// One member of a cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
fn cpio(name: &str, bytes: &[u8]) -> Vec<u8> {
    const REGULAR_EXECUTABLE: usize = 0o100_755;
    let fields = [0, REGULAR_EXECUTABLE, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, name.len() + 1, 0];
    let mut member = b"070701".to_vec();
    member.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    member.extend(name.as_bytes());
    member.push(0);
    pad(&mut member);
    member.extend(bytes);
    pad(&mut member);
    member
}

fn pad(member: &mut Vec<u8>) {
    member.resize(member.len().next_multiple_of(4), 0);
}
