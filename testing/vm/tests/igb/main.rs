//! A machine with SR-IOV network cards behind an IOMMU: what do virtual functions, vfio and vDPA on a PCI device do?
mod attach;
mod card;
mod doctor;
mod lab;
mod sriov;
mod vfio;
mod vp_vdpa;
