//! What does control ask of a delegated IPAM plugin (CNI 1.1 §"Delegated Plugins")? The rim that the agent implements by
//! executing the plugin and tests fake.

use crate::kernel::Route;
use crate::record::{Address, Delegation};
use model::Dns;

/// What an IPAM plugin gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leased {
    /// Addresses with their routers.
    pub addresses: Vec<Address>,
    /// Routes; one without a gateway goes by the router of an address of its family.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
}

/// Why a plugin did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("IPAM plugin {plugin:?}: {reason}")]
pub struct DelegateError {
    /// The plugin's name.
    pub plugin: String,
    /// Its CNI error code, or that of the failure to execute it.
    pub code: u32,
    /// Its message, or why it could not be executed.
    pub reason: String,
}

/// Delegated IPAM plugins.
pub trait Delegate: Send + Sync {
    /// ADD: takes addresses.
    ///
    /// # Errors
    /// The plugin failed; whether it took addresses is unknown, so DEL is due.
    fn add(&self, call: &Delegation) -> Result<Leased, DelegateError>;

    /// DEL: gives back what ADD took, if anything. Idempotent.
    ///
    /// # Errors
    /// The plugin failed.
    fn del(&self, call: &Delegation) -> Result<(), DelegateError>;
}
