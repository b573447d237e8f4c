//! Which namespaced objects are there? What policies and services are made of, each once.

use std::collections::BTreeMap;
use std::fmt;

use crate::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, Namespace, NamespaceSpec, NetworkPolicy,
    NetworkPolicySpec, ObjectError, Pod, PodName, PodSpec, Service, ServiceSpec,
};

/// What names an object of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in it.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Objects as people write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSpecs {
    /// Namespaces with labels. Others need not be listed.
    pub namespaces: Vec<NamespaceSpec>,
    /// Pods: what is to be known of those here, and of those elsewhere.
    pub pods: Vec<PodSpec>,
    /// Policies of namespaces.
    pub network_policies: Vec<NetworkPolicySpec>,
    /// Policies of the cluster.
    pub cluster_network_policies: Vec<ClusterNetworkPolicySpec>,
    /// Services.
    pub services: Vec<ServiceSpec>,
}

/// Checked objects, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Namespaces.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Pods.
    pub pods: BTreeMap<PodName, Pod>,
    /// Policies of namespaces.
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// Policies of the cluster.
    pub cluster_policies: BTreeMap<String, ClusterNetworkPolicy>,
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
}

/// Why specs are no objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// An object is not legal.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Two have one name.
    #[error("{kind} {name}: is defined twice: rename or remove one of them")]
    Duplicate {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

impl Objects {
    /// Checks specs.
    ///
    /// # Errors
    /// The first thing that is not legal.
    pub fn new(specs: &ObjectSpecs) -> Result<Self, ObjectsError> {
        let in_namespace = |namespace: &str, name: &str| ObjectName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Ok(Self {
            namespaces: by_name("Namespace", &specs.namespaces, Namespace::new, |it| it.name().to_owned())?,
            pods: by_name("Pod", &specs.pods, Pod::new, |it| it.name().clone())?,
            policies: by_name("NetworkPolicy", &specs.network_policies, NetworkPolicy::new, |it| {
                in_namespace(it.namespace(), it.name())
            })?,
            cluster_policies: by_name(
                "ClusterNetworkPolicy",
                &specs.cluster_network_policies,
                ClusterNetworkPolicy::new,
                |it| it.name().to_owned(),
            )?,
            services: by_name("Service", &specs.services, Service::new, |it| it.name().clone())?,
        })
    }
}

fn by_name<S, T, K: Ord + Clone + fmt::Display>(
    kind: &'static str,
    specs: &[S],
    check: impl Fn(&S) -> Result<T, ObjectError>,
    name: impl Fn(&T) -> K,
) -> Result<BTreeMap<K, T>, ObjectsError> {
    let mut objects = BTreeMap::new();
    for spec in specs {
        let object = check(spec)?;
        let name = name(&object);
        if objects.insert(name.clone(), object).is_some() {
            return Err(ObjectsError::Duplicate { kind, name: name.to_string() });
        }
    }
    Ok(objects)
}
