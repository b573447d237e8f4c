//! What is there to a device whose card is a switch (switchdev mode)?
//!
//! Its function has a representor on the node, and that is a port of our switch. It is up, and takes what the pod's packets may
//! be long, before the port is made; after the port is gone it is as it was. What the switch does is not asked of the card:
//! VLAN, and what a pod may send.
//!
//! A representor is known by its number: it may be renamed under its port, and one that was made anew under its name is
//! another, of which the port sees nothing.

use model::AttachmentId;

use crate::Kernel;
use crate::cards::Representor;
use crate::engine::{AttachError, Engine};
use crate::kernel::KernelError;
use crate::record::{Attachment, CardDevice, State};

/// Refuses settings that such a card has not got, and the port has.
pub(crate) fn refuse_settings(card: &CardDevice, representor: &Representor) -> Result<(), KernelError> {
    let asked = &card.settings;
    let settings = [
        (asked.vlan.is_some(), "vlan"),
        (asked.spoof_check.is_some(), "spoofchk"),
        (asked.trust.is_some(), "trust"),
    ];
    let Some((_, setting)) = settings.into_iter().find(|(asked, _)| *asked) else { return Ok(()) };
    Err(KernelError::Refused {
        doing: format!("PCI function {}: set {setting}", card.function),
        reason: format!(
            "its card is in switchdev mode, and {} is a port of Millrace's switch, which does that: leave vlan, spoofchk and \
             trust out, and use vlan and portSecurity of the network",
            representor.name
        ),
    })
}

/// The representor, as the port needs it.
pub(crate) fn serving(attachment: &Attachment, representor: &Representor) -> Representor {
    Representor { mtu_bytes: attachment.mtu_bytes, up: true, ..representor.clone() }
}

/// Makes it be as it was, once its port is gone. One that is gone, or another one by now, needs nothing.
pub(crate) fn leave(kernel: &dyn Kernel, attachment: &Attachment) -> Result<(), KernelError> {
    let (Some(card), Some(before)) = (&attachment.card, attachment.representor()) else { return Ok(()) };
    match kernel.representor(card.function)? {
        Some(now) if now.index == before.index && now != *before => {
            kernel.set_representor(&Representor { name: now.name, ..before.clone() })
        }
        _ => Ok(()),
    }
}

/// Why it is not as the port needs it, if it is not.
pub(crate) fn drift(kernel: &dyn Kernel, attachment: &Attachment) -> Option<String> {
    let (card, known) = (attachment.card.as_ref()?, attachment.representor()?);
    let name = &known.name;
    match now(kernel, card) {
        Err(error) => Some(error.to_string()),
        Ok(now) if now.index != known.index => Some(format!("the representor {name} was made anew")),
        Ok(now) if now.name != *name => Some(format!("the representor {name} is called {} now", now.name)),
        Ok(now) if !now.up => Some(format!("the representor {name} is down")),
        Ok(now) if now.mtu_bytes != attachment.mtu_bytes => {
            let (has, wanted) = (now.mtu_bytes, attachment.mtu_bytes);
            Some(format!("the representor {name} has MTU {has}, not {wanted}"))
        }
        Ok(_) => None,
    }
}

fn now(kernel: &dyn Kernel, card: &CardDevice) -> Result<Representor, KernelError> {
    let gone = || KernelError::Refused {
        doing: format!("PCI function {}: look for its representor", card.function),
        reason: GONE.to_owned(),
    };
    kernel.representor(card.function)?.ok_or_else(gone)
}

const GONE: &str = "it has none any more: put its card into switchdev mode again (`devlink dev eswitch set pci/PF mode \
                    switchdev`), or restart the pod";

/// What is known, brought up to what is there: one that was made anew is to be as it is now again, afterwards.
fn followed(known: &Representor, now: &Representor) -> Representor {
    match known.index == now.index {
        true => Representor { name: now.name.clone(), ..known.clone() },
        false => now.clone(),
    }
}

impl Engine {
    /// Makes the representor of one attachment serve its port again, if the attachment is ready and nobody works on it. One
    /// that was made anew, or renamed, gets the port anew: the one that is there sees nothing of it, or would not be found
    /// by the next switch.
    pub(crate) fn follow(&self, id: &AttachmentId) -> Result<(), AttachError> {
        let Some(_lock) = self.try_lock(id) else { return Ok(()) };
        let Some(mut attachment) = self.find(id).filter(|found| found.state == State::Ready) else {
            return Ok(());
        };
        let (Some(card), Some(known)) = (&attachment.card, attachment.representor()) else { return Ok(()) };
        let kernel = &*self.rim().kernel;
        let now = now(kernel, card)?;
        let wanted = serving(&attachment, &now);
        if now != wanted {
            kernel.set_representor(&wanted)?;
        }
        let followed = followed(known, &now);
        if (known.index, &known.name) == (followed.index, &followed.name) {
            return Ok(());
        }
        tracing::warn!(attachment = %id, before = known.name, now = now.name, "its representor is another, or renamed");
        if let Some(before) = attachment.card.as_mut().and_then(|card| card.before.as_mut()) {
            before.function.representor = Some(followed);
        }
        let pulled = self.pull(&attachment);
        // Whatever failed: the port is desired.
        self.plug(&attachment)?;
        pulled?;
        // Not before: whoever finds this half-done does it again.
        Ok(self.keep(&attachment)?)
    }
}
