//! How is an attachment made whole again whose devices went away under it?
//!
//! Netdevs of VDUSE outlive the switch; TAPs do where the switch took them up again. What vanished all the same (somebody
//! ran `vdpa dev del`, or the switch was away for too long) is made again in its place, as ADD makes it: every step of that
//! finds what is there. Where this fails because the device is broken for good, it is destroyed and made anew.

use model::{AttachmentId, PortKind};
use vswitch::program::PortNo;

use crate::engine::{AttachError, Engine};
use crate::kernel::KernelError;
use crate::parts;
use crate::record::{Attachment, State};

/// What has become of an attachment's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// It may be gone, or as it was.
    Unknown,
    /// It is of no use any more.
    Broken,
}

impl Engine {
    /// After a restart of the switch: everything that its ports made or serve is as it was, or is made so.
    pub(crate) fn reattach(&self) {
        for attachment in self.desired().plugged() {
            // What a card moves needs the switch's port only, as a program does that has the socket.
            if attachment.kind == PortKind::VhostUser || attachment.card.is_some() {
                continue;
            }
            if let Err(error) = self.restore(&attachment.id, Damage::Unknown) {
                tracing::warn!(attachment = %attachment.id, %error, "not as it was made");
            }
        }
    }

    /// Restores the attachments whose device is not on the vDPA bus any more, or broken; and those whose representor is not
    /// as it was, or another. For now and then.
    pub(crate) fn repair(&self) -> Vec<(AttachmentId, AttachError)> {
        let mut errors = self.repair_vduse();
        for attachment in self.desired().plugged().filter(|attachment| attachment.representor().is_some()) {
            let followed = self.follow(&attachment.id);
            errors.extend(followed.err().map(|error| (attachment.id.clone(), error)));
        }
        errors
    }

    fn repair_vduse(&self) -> Vec<(AttachmentId, AttachError)> {
        let desired = self.desired();
        let ready = |attachment: &&Attachment| {
            attachment.state == State::Ready && attachment.vdpa.is_some() && attachment.kind.is_vduse()
        };
        let ready: Vec<_> = desired.plugged().filter(ready).collect();
        if ready.is_empty() {
            return Vec::new();
        }
        // While the switch is away nothing can be said, and nothing be done.
        let Ok(open) = self.rim().datapath.ports() else { return Vec::new() };
        let mut errors = Vec::new();
        for attachment in ready {
            let is_open = attachment.port.is_some_and(|port| open.contains(&PortNo(port)));
            let restored = match self.damage(attachment, is_open) {
                Ok(None) => continue,
                Ok(Some(damage)) => {
                    tracing::warn!(attachment = %attachment.id, ?damage, "its device is made again");
                    self.restore(&attachment.id, damage)
                }
                Err(error) => Err(error.into()),
            };
            errors.extend(restored.err().map(|error| (attachment.id.clone(), error)));
        }
        errors
    }

    fn damage(&self, attachment: &Attachment, is_open: bool) -> Result<Option<Damage>, KernelError> {
        let kernel = &*self.rim().kernel;
        match &attachment.vdpa {
            // A port that cannot be opened may have a device that is in the way of a new one.
            Some(place) if !is_open => Ok(kernel.is_vduse_broken(&place.device)?.then_some(Damage::Broken)),
            _ => Ok((!parts::is_on_bus(kernel, attachment)?).then_some(Damage::Unknown)),
        }
    }

    /// Makes one attachment whole, if it is ready and nobody works on it.
    fn restore(&self, id: &AttachmentId, damage: Damage) -> Result<(), AttachError> {
        let Some(_lock) = self.try_lock(id) else { return Ok(()) };
        let Some(attachment) = self.find(id).filter(|found| found.state == State::Ready) else {
            return Ok(());
        };
        // A pod that is gone waits for its DEL; what now is in its place is another's.
        if !self.rim().kernel.netns_exists(&attachment.netns) || self.desired().inherited(&attachment) {
            return Ok(());
        }
        if damage == Damage::Broken {
            self.renew_device(&attachment)?;
        }
        let mut again = attachment.clone();
        self.finish(&mut again)?;
        if again != attachment {
            self.keep(&again)?;
        }
        Ok(())
    }

    /// Makes what comes behind the port. A device that is of no use is destroyed and made anew, once.
    pub(crate) fn finish(&self, attachment: &mut Attachment) -> Result<(), AttachError> {
        let kernel = &*self.rim().kernel;
        let socket = self.vhost_socket(&attachment.network);
        let Err(error) = parts::finish(kernel, attachment, socket) else { return Ok(()) };
        if attachment.card.is_some() || parts::is_on_bus(kernel, attachment).unwrap_or(true) {
            return Err(error.into());
        }
        tracing::warn!(attachment = %attachment.id, %error, "its device is of no use; it is made anew");
        self.renew_device(attachment)?;
        Ok(parts::finish(kernel, attachment, socket)?)
    }

    /// The record stays as it is: whoever finds this half-done does it again.
    fn renew_device(&self, attachment: &Attachment) -> Result<(), AttachError> {
        let kernel = &*self.rim().kernel;
        let place = attachment.vdpa.as_ref();
        let off_bus = place.map_or(Ok(()), |place| kernel.delete_vdpa_device(&place.device));
        let pulled = self.pull(attachment);
        let destroyed = place.map_or(Ok(()), |place| kernel.destroy_vduse(&place.device));
        // Whatever failed: the port is desired.
        let plugged = self.plug(attachment);
        off_bus?;
        pulled?;
        destroyed?;
        Ok(plugged?)
    }
}
