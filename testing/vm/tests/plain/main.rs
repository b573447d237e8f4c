//! A machine without special hardware: what do VDUSE, vDPA's simulator and netdevsim do?
mod attach;
mod bench;
mod doctor;
mod lab;
mod port;
mod representor;
mod switchdev;
mod vdpa;
mod vduse;
