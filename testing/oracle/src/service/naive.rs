//! Where do services say that a connection may go, read as they are written?

use vswitch::program::{EndpointSpec, FrontendSpec};
use wire::IpProtocol;

use super::{Pod, Services};

/// A connection: who begins it, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub client: Pod,
    /// What it connects to.
    pub to: FrontendSpec,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To whoever has the address: it is no service's.
    Untouched,
    /// Nowhere, and the client is told.
    Refused,
    /// To one of these.
    OneOf(Vec<EndpointSpec>),
}

/// A connection that begins.
pub fn ask(services: &Services, question: &Question) -> Answer {
    let all = || services.values().flat_map(|service| &service.frontends);
    if !all().any(|frontend| frontend.address == question.to.address) {
        return Answer::Untouched;
    }
    match services.values().find(|service| service.frontends.contains(&question.to)) {
        Some(service) if !service.endpoints.is_empty() => Answer::OneOf(service.endpoints.clone()),
        _ => Answer::Refused,
    }
}

/// A later packet of one that went to `endpoint`: it stays there, but datagrams leave one that went.
pub fn ask_again(services: &Services, question: &Question, endpoint: EndpointSpec) -> Answer {
    match ask(services, question) {
        Answer::Untouched => Answer::Untouched,
        Answer::OneOf(all) if all.contains(&endpoint) => Answer::OneOf(vec![endpoint]),
        _ if question.to.protocol != IpProtocol::UDP => Answer::OneOf(vec![endpoint]),
        answer => answer,
    }
}
