//! The engine in a world of fakes that can fail, or end, at any step.
mod attach;
mod crash;
mod stored;
mod vdpa;
mod world;
