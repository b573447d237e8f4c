//! Who may depend on whom? The picture of ARCHITECTURE.md, held against what cargo says.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run::cargo;

/// Each crate, and the crates of the house that it may depend on. What is not here is forbidden.
const ALLOWED: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("frame", &[]),
    ("vduse", &[]),
    ("ports", &["frame", "vduse", "wire"]),
    ("vswitch", &["wire", "frame"]),
    ("worker", &["ports", "vswitch", "frame", "wire"]),
    ("model", &["wire"]),
    ("policy", &["model", "vswitch", "wire"]),
    ("local-api", &["model"]),
    ("reconcile", &["model", "policy", "vswitch", "local-api", "wire"]),
    ("linux", &["reconcile", "model", "vduse", "wire"]),
    ("millrace-cni", &["local-api"]),
    ("guest", &["wire"]),
    ("sim", &["vswitch", "worker", "ports", "frame", "wire"]),
    ("oracle", &["frame", "model", "policy", "sim", "vswitch", "wire"]),
    ("lab", &["guest", "wire"]),
    ("fuzz", &["wire", "frame", "ports", "vswitch", "model", "local-api", "reconcile"]),
    ("bench", &["frame", "guest", "lab", "local-api", "ports", "vduse", "vswitch", "wire"]),
    ("vm", &["guest", "lab", "wire"]),
    ("xtask", &[]),
];
/// The one program may use everything, the test rooms only through their libraries.
const FREE: &[&str] = &["millrace"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

pub(crate) fn broken() -> Result<Vec<String>> {
    let output =
        cargo(&["metadata", "--format-version", "1", "--no-deps"]).output().context("cargo metadata")?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let house: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        broken.extend(wrong_folder(package));
        if FREE.contains(&package.name.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            broken.push(format!("crate {} has no line in xtask's table of directions", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let is_test = dependency.kind.as_deref() == Some("dev");
            if house.contains(name) && !is_test && !allowed.contains(&name) {
                broken.push(format!("crate {} must not depend on {name}", package.name));
            }
        }
    }
    Ok(broken)
}

/// Folder name == crate name.
fn wrong_folder(package: &Package) -> Option<String> {
    let folder = package.manifest_path.trim_end_matches("/Cargo.toml").rsplit('/').next()?;
    (folder != package.name).then(|| format!("crate {} lies in a folder named {folder}", package.name))
}
