//! Which addresses do rules speak of? Blocks, made of prefixes, nested in each other in any way.
//!
//! A block's address and its exceptions are all prefixes. The longest of them that has an address says of each block
//! whether it has that address: an identity needs to know that one alone, not the blocks.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::Block;

use crate::hash::Map;
use crate::objects::ObjectNo;

/// All blocks in use.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    users: BTreeMap<Block, BTreeSet<ObjectNo>>,
    /// The prefixes, with how many blocks each is part of.
    prefixes: Map<IpNet, usize>,
    /// The lengths of these, with how many have each: of IPv4, of IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
    /// That came or went since the last look.
    pub(crate) touched: BTreeSet<IpNet>,
}

impl Blocks {
    pub(crate) fn add(&mut self, block: &Block, object: ObjectNo) {
        let is_new = !self.users.contains_key(block);
        self.users.entry(block.clone()).or_default().insert(object);
        if !is_new {
            return;
        }
        for prefix in prefixes(block) {
            let uses = self.prefixes.entry(prefix).or_default();
            *uses += 1;
            if *uses == 1 {
                *self.lengths[family(&prefix)].entry(prefix.prefix_len()).or_default() += 1;
                self.touched.insert(prefix);
            }
        }
    }

    pub(crate) fn remove(&mut self, block: &Block, object: ObjectNo) {
        let Some(users) = self.users.get_mut(block) else { return };
        users.remove(&object);
        if !users.is_empty() {
            return;
        }
        self.users.remove(block);
        for prefix in prefixes(block) {
            if is_last(&mut self.prefixes, prefix) {
                let lengths = &mut self.lengths[family(&prefix)];
                if let Some(count) = lengths.get_mut(&prefix.prefix_len()) {
                    *count -= 1;
                    if *count == 0 {
                        lengths.remove(&prefix.prefix_len());
                    }
                }
                self.touched.insert(prefix);
            }
        }
    }

    pub(crate) fn has_prefix(&self, prefix: &IpNet) -> bool {
        self.prefixes.contains_key(prefix)
    }

    /// The prefixes that have all of `net`, the longest first.
    fn enclosing(&self, net: IpNet) -> impl Iterator<Item = IpNet> {
        let lengths = self.lengths[family(&net)].range(..=net.prefix_len()).rev();
        let prefix = move |(len, _): (&u8, &usize)| IpNet::new(net.addr(), *len).ok().map(|net| net.trunc());
        lengths.filter_map(prefix).filter(|prefix| self.has_prefix(prefix))
    }

    /// The longest prefix that has all of `net`.
    pub(crate) fn longest(&self, net: IpNet) -> Option<IpNet> {
        self.enclosing(net).next()
    }

    /// Whose rules are about any of the prefixes.
    pub(crate) fn users(&self, prefixes: &BTreeSet<IpNet>) -> BTreeSet<ObjectNo> {
        let mut inside: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
        for prefix in prefixes {
            // A prefix that went is not its own enclosing one, but others are.
            self.enclosing(*prefix).for_each(|cidr| inside.entry(cidr).or_default().push(*prefix));
        }
        let concerned = inside.iter().flat_map(|(cidr, prefixes)| {
            let of_cidr = self.of_cidr(*cidr);
            of_cidr.filter(|(block, _)| prefixes.iter().any(|prefix| block.contains(prefix)))
        });
        concerned.flat_map(|(_, users)| users).copied().collect()
    }

    fn of_cidr(&self, cidr: IpNet) -> impl Iterator<Item = (&Block, &BTreeSet<ObjectNo>)> {
        let first = Block { cidr, except: Box::default() };
        self.users.range(first..).take_while(move |(block, _)| block.cidr == cidr)
    }
}

fn prefixes(block: &Block) -> impl Iterator<Item = IpNet> {
    std::iter::once(block.cidr).chain(block.except.iter().copied())
}

fn family(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}

/// Takes one use away; true if it was the last.
fn is_last(uses: &mut Map<IpNet, usize>, prefix: IpNet) -> bool {
    let Some(count) = uses.get_mut(&prefix) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        uses.remove(&prefix);
    }
    is_last
}
