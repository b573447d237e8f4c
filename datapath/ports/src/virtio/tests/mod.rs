//! Tests of the device side, each against a driver whose every byte is the test's.

mod arbitrary;
mod differential;
mod driver;
mod header;
mod hostile;
mod memory;
mod rx;
mod slot;
mod tx;
