//! How does a program in a pod find its vhost-user socket or vhost-vdpa file? A directory of the container, with the socket
//! and what describes it, mounted on the pod's volume called `shared-dir` (as userspace-cni does), if the pod has one.
//!
//! | file | for whom |
//! |---|---|
//! | `INTERFACE` | the socket of kind `vhost-user` |
//! | `INTERFACE-device.json` | NPWG device-info-spec 1.1.0: `type`, `path` and what else that type has |
//! | `CONTAINER-INTERFACE` | Kuryr, of kind `vhost-user`: `vhostname`, `vhostmac`, `mode` |

use std::path::{Path, PathBuf};

use model::{PodRef, SocketCreator, VhostSocket};

use crate::Kernel;
use crate::kernel::{KernelError, Ownership};
use crate::record::{Attachment, VhostFiles};

/// The volume of the pod that the directory is mounted on, if it has one.
pub(crate) fn volume(kernel: &dyn Kernel, kubelet_dir: &Path, pod: Option<&PodRef>) -> Option<PathBuf> {
    let uid = pod?.uid.as_ref()?;
    let volumes = kubelet_dir.join("pods").join(uid.as_str()).join("volumes/kubernetes.io~empty-dir");
    Some(volumes.join("shared-dir")).filter(|volume| kernel.is_dir(volume))
}

/// Makes the directory, which a socket is born in.
pub(crate) fn make_directory(
    kernel: &dyn Kernel,
    files: &VhostFiles,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    // The one who creates the socket needs to write, the other one to pass.
    let mode = match socket.created_by {
        SocketCreator::Switch => 0o750,
        SocketCreator::Pod => 0o770,
    };
    kernel.make_dir(&files.dir, Ownership { uid: socket.uid, gid: socket.gid, mode })
}

/// Hands the directory to the pod, with the files that describe the socket or device.
pub(crate) fn hand_over(
    kernel: &dyn Kernel,
    attachment: &Attachment,
    files: &VhostFiles,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    let readable = Ownership { uid: socket.uid, gid: socket.gid, mode: 0o640 };
    if let (Some(path), Some(at)) = (&files.kuryr, &files.socket) {
        kernel.write_file(path, &kuryr(attachment, at, socket), readable)?;
    }
    for path in &files.device_info {
        let ownership =
            if path.starts_with(&files.dir) { readable } else { Ownership { uid: 0, gid: 0, mode: 0o644 } };
        kernel.write_file(path, &device_info(attachment, files, socket), ownership)?;
    }
    match &files.volume {
        Some(volume) => kernel.bind_mount(&files.dir, volume),
        None => Ok(()),
    }
}

/// Takes back what [`hand_over`] did. `last`: no other interface of the container has its socket there.
pub(crate) fn take_back(kernel: &dyn Kernel, files: &VhostFiles, last: bool) -> Vec<KernelError> {
    let mut errors = Vec::new();
    if let Some(volume) = files.volume.as_ref().filter(|_| last) {
        errors.extend(kernel.unmount(volume).err());
    }
    for path in files.device_info.iter().rev().chain(&files.kuryr) {
        errors.extend(kernel.remove_file(path).err());
    }
    errors
}

/// Removes what [`make_directory`] made, and the socket, whoever created it.
pub(crate) fn remove_directory(kernel: &dyn Kernel, files: &VhostFiles, last: bool) -> Vec<KernelError> {
    let mut errors = Vec::new();
    if let Some(socket) = &files.socket {
        errors.extend(kernel.remove_file(socket).err());
    }
    if last {
        errors.extend(kernel.remove_dir(&files.dir).err());
    }
    errors
}

/// `client` and `server` are said of the pod's program, in both formats.
fn mode(socket: VhostSocket) -> &'static str {
    match socket.created_by {
        SocketCreator::Switch => "client",
        SocketCreator::Pod => "server",
    }
}

/// NPWG device-info-spec 1.1.0 §4.
fn device_info(attachment: &Attachment, files: &VhostFiles, socket: VhostSocket) -> Vec<u8> {
    let json = match &attachment.vdpa {
        Some(place) => serde_json::json!({
            "type": "vdpa",
            "version": "1.1.0",
            "vdpa": { "parent-device": place.device, "driver": "vhost", "path": place.path },
        }),
        None => serde_json::json!({
            "type": "vhost-user",
            "version": "1.1.0",
            "vhost-user": { "mode": mode(socket), "path": files.socket },
        }),
    };
    json.to_string().into_bytes()
}

/// kuryr-kubernetes, vhost-user support: the socket's name is within the directory.
fn kuryr(attachment: &Attachment, at: &Path, socket: VhostSocket) -> Vec<u8> {
    let json = serde_json::json!({
        "vhostname": at.file_name().unwrap_or_default().to_string_lossy(),
        "vhostmac": attachment.mac,
        "mode": mode(socket),
    });
    json.to_string().into_bytes()
}
