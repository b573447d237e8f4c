//! What is the switch told of policies? Namespaces, pods and policies in, rules about identities out, and only what changed.
//!
//! Theory of operation. A *selector* is a choice of pods that some policy makes, for its subject or for a peer; equal ones
//! are one. A *fact* about an address is what rules can tell it from others by: the peers' selectors that its pod matches,
//! its pod's ports that egress rules name, and the longest of the prefixes that blocks are made of. An *identity* is a set
//! of facts, so that there are as many as policies can tell apart, however many labels there are. A *group* is the pods that
//! the same policies select, with the same numbers for the ports that ingress rules name; each has one policy.
//!
//! A [`Compiler`] holds the world. [`Compiler::apply`] takes changes and works in steps, each of which passes on only what
//! differs:
//!
//! ```text
//! changes -> selectors matched (inverted index over labels) -> groups -> policies in use
//!         -> their peers' selectors matched -> facts -> identities -> policies that name these
//! ```
//!
//! - `awake`: whose subjects count. `selectors`, `label_index`: who matches what. `blocks`: prefixes. `names`: ports by name.
//! - `world`: namespaces, pods, addresses. `objects`: the policies that were written.
//! - `groups`, `identities`: the two kinds of number that the switch knows; `numbers`: how they are given.
//! - `matching`, `settle`: the steps; `rules`: the result.
//!
//! **Invariant:** what is compiled depends on the world alone, not on the way to it, but for the numbers.
//! **Invariant:** a number stands for one meaning while anybody has it; the next meaning gets another.
#![forbid(unsafe_code)]
mod awake;
mod blocks;
mod compiler;
mod groups;
mod hash;
mod identities;
mod label_index;
mod matching;
mod names;
mod numbers;
mod objects;
mod rules;
mod selectors;
mod settle;
#[cfg(test)]
mod tests;
mod world;

pub use compiler::{Change, Changed, Compiler, Span};
