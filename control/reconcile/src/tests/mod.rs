//! The engine in a world of fakes that can fail, or end, at any step.
mod attach;
mod cards;
mod crash;
mod dhcp;
mod fake_cards;
mod host;
mod objects;
mod representors;
mod stored;
mod underlay;
mod vdpa;
mod world;
