//! A machine without special hardware: what do VDUSE, vDPA's simulator and netdevsim do?
mod doctor;
mod lab;
mod port;
mod vduse;
