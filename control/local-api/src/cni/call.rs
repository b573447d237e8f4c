//! What exactly is asked? Command, variables and configuration, checked as the specification demands.

use std::net::IpAddr;
use std::path::PathBuf;

use super::conf::parse_address;
use super::{CniError, Code, NetConf, Request, Version};

/// What the runtime wants (§"CNI operations").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is it as it was made?
    Check,
    /// Detach all but these.
    Gc,
    /// Can ADD be served?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    /// The command of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The version that the command came with.
    fn since(self) -> Version {
        match self {
            Self::Add | Self::Del | Self::Version => Version::V0_3_0,
            Self::Check => Version::V0_4_0,
            Self::Gc | Self::Status => Version::V1_1_0,
        }
    }

    /// The variables that the command needs (§"Parameters" of each operation).
    fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// CNI_ARGS, as far as it is understood. Other keys are ignored, as `IgnoreUnknown` asks and Kubernetes always says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallArgs {
    /// `K8S_POD_NAMESPACE`
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`
    pub pod_uid: Option<String>,
    /// `MAC`
    pub mac: Option<String>,
    /// `IP`: one or more addresses, separated by commas.
    pub ips: Vec<String>,
}

impl CallArgs {
    fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                let msg = format!("CNI_ARGS: {pair:?} has no '=': write KEY=VALUE, separated by ';'");
                CniError::new(Code::INVALID_ENVIRONMENT, msg)
            })?;
            let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match key.trim() {
                "K8S_POD_NAMESPACE" => args.pod_namespace = text(),
                "K8S_POD_NAME" => args.pod_name = text(),
                "K8S_POD_UID" => args.pod_uid = text(),
                "MAC" => args.mac = text(),
                "IP" => args.ips.extend(value.split(',').filter(|ip| !ip.is_empty()).map(str::to_owned)),
                _ => {}
            }
        }
        Ok(args)
    }
}

/// One call of the runtime.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked.
    pub command: Command,
    /// The version to answer in.
    pub version: Version,
    /// CNI_CONTAINERID; empty where the command does not need it.
    pub container_id: String,
    /// CNI_IFNAME; empty where the command does not need it.
    pub ifname: String,
    /// CNI_NETNS, where it was given.
    pub netns: Option<PathBuf>,
    /// CNI_ARGS.
    pub args: CallArgs,
    /// The configuration.
    pub conf: NetConf,
}

impl Call {
    /// Checks a request.
    ///
    /// # Errors
    /// Codes 1, 2, 4, 6, 7, as the specification says, each with the remedy.
    pub fn parse(request: &Request) -> Result<Self, CniError> {
        let command = command_of(request)?;
        let (conf, version) = NetConf::parse(&request.stdin)?;
        if version < command.since() {
            let msg = format!(
                "{} needs cniVersion {} or newer, the configuration has {version}",
                command.as_str(),
                command.since()
            );
            return Err(CniError::new(Code::INCOMPATIBLE_VERSION, msg));
        }
        for name in command.variables() {
            if request.var(name).is_none() {
                let msg = format!("{name} is not set: {} needs it", command.as_str());
                return Err(CniError::new(Code::INVALID_ENVIRONMENT, msg));
            }
        }
        if conf.name.is_empty() {
            let msg = "name: is missing in the network configuration: give it one";
            return Err(CniError::new(Code::INVALID_CONFIG, msg));
        }
        if command == Command::Add {
            conf.require_supported()?;
        }
        Ok(Self {
            command,
            version,
            container_id: request.var("CNI_CONTAINERID").unwrap_or_default().to_owned(),
            ifname: request.var("CNI_IFNAME").unwrap_or_default().to_owned(),
            netns: request.var("CNI_NETNS").map(PathBuf::from),
            args: CallArgs::parse(request.var("CNI_ARGS").unwrap_or_default())?,
            conf,
        })
    }

    /// The station address that was asked for: by capability, else by CNI_ARGS.
    ///
    /// # Errors
    /// Code 7: it is no text.
    pub fn mac(&self) -> Result<Option<&str>, CniError> {
        Ok(self.conf.mac()?.or(self.args.mac.as_deref()))
    }

    /// The addresses that were asked for, by capability, else by CNI_ARGS, each with its prefix length where one is given.
    ///
    /// # Errors
    /// Code 7: one of them is no address.
    pub fn ips(&self) -> Result<Vec<(IpAddr, Option<u8>)>, CniError> {
        let asked = self.conf.ips()?;
        let asked = if asked.is_empty() { &self.args.ips } else { &asked };
        let parse = |text: &String| {
            parse_address(text).ok_or_else(|| {
                let msg = format!("ips: {text:?} is no address: write 10.1.0.9/24 or 10.1.0.9");
                CniError::new(Code::INVALID_CONFIG, msg)
            })
        };
        asked.iter().map(parse).collect()
    }
}

fn command_of(request: &Request) -> Result<Command, CniError> {
    let invalid = |msg: String| CniError::new(Code::INVALID_ENVIRONMENT, msg);
    let text = request.var("CNI_COMMAND").ok_or_else(|| {
        invalid("CNI_COMMAND is not set: this program is called by a container runtime".to_owned())
    })?;
    Command::parse(text).ok_or_else(|| {
        invalid(format!("CNI_COMMAND: {text:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION"))
    })
}
