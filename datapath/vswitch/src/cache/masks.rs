//! Under which masks are the decisions for a port's frames kept?

use super::habit::Habit;
use crate::key::Mask;

/// Masks that one port may have at a time. A port whose traffic needs more is still right, and slower: what does not
/// fit is cached by the exact key.
pub(crate) const MAX_MASKS: usize = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    mask: Mask,
    /// Frames answered, fading.
    hits: u64,
    /// Entries under this mask; without any, the slot is free.
    entries: u32,
}

/// The masks of one port, ordered by use.
#[derive(Debug, Default)]
pub(crate) struct PortMasks {
    slots: Vec<Slot>,
    /// Slots in use, most used first.
    order: Vec<u8>,
    /// Frames looked up, fading.
    pub(crate) lookups: u64,
    /// The first mask answers most frames: it is asked before the microflow cache.
    first_leads: bool,
    /// What the port's frames have looked like lately.
    pub(crate) habit: Option<Habit>,
}

impl PortMasks {
    /// The masks in use, most used first, with their numbers.
    #[inline]
    pub(crate) fn ranked(&self) -> impl Iterator<Item = (u8, &Mask)> {
        self.order.iter().map(|slot| (*slot, &self.slots[*slot as usize].mask))
    }

    /// The mask that answers most frames, if there is one.
    #[inline]
    pub(crate) fn leader(&self) -> Option<(u8, &Mask)> {
        if self.first_leads { self.ranked().next() } else { None }
    }

    pub(crate) fn mask(&self, slot: u8) -> Option<&Mask> {
        self.slots.get(usize::from(slot)).map(|slot| &slot.mask)
    }

    /// Mask `slot` answered so many frames.
    #[inline]
    pub(crate) fn hit(&mut self, slot: u8, frames: u64) {
        self.slots[usize::from(slot)].hits += frames;
    }

    /// The number of `mask`; a new one if there is room.
    pub(crate) fn admit(&mut self, mask: Mask) -> Option<u8> {
        if let Some(slot) = self.order.iter().find(|slot| self.slots[usize::from(**slot)].mask == mask) {
            return Some(*slot);
        }
        let new = Slot { mask, ..Slot::default() };
        let slot = match (0..self.slots.len()).find(|slot| !self.order.contains(&(*slot as u8))) {
            Some(slot) => {
                self.slots[slot] = new;
                slot
            }
            None if self.slots.len() < MAX_MASKS => {
                self.slots.push(new);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.order.push(slot as u8);
        if self.order.len() == 1 {
            self.first_leads = true;
        }
        Some(slot as u8)
    }

    /// An entry under mask `slot` was added.
    pub(crate) fn added(&mut self, slot: u8) {
        self.slots[usize::from(slot)].entries += 1;
    }

    /// An entry under mask `slot` is gone.
    pub(crate) fn removed(&mut self, slot: u8) {
        let entries = &mut self.slots[usize::from(slot)].entries;
        *entries = entries.saturating_sub(1);
    }

    /// Drops masks without entries, orders the others by recent use, and lets the past fade.
    pub(crate) fn rank(&mut self) {
        let slots = &mut self.slots;
        self.order.retain(|slot| slots[usize::from(*slot)].entries > 0);
        self.order.sort_by_key(|slot| std::cmp::Reverse(slots[usize::from(*slot)].hits));
        let first = self.order.first().map_or(0, |slot| slots[usize::from(*slot)].hits);
        self.first_leads = first >= self.lookups / 2;
        for slot in slots {
            slot.hits /= 2;
        }
        self.lookups /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(bits: u64) -> Mask {
        Mask([bits; 8])
    }

    #[test]
    fn masks_are_capped_and_free_ones_come_back() {
        let mut masks = PortMasks::default();
        for number in 0..MAX_MASKS as u64 {
            let slot = masks.admit(mask(number)).unwrap();
            masks.added(slot);
            assert_eq!(masks.admit(mask(number)), Some(slot));
        }
        assert_eq!(masks.admit(mask(99)), None);
        masks.removed(7);
        masks.rank();
        assert_eq!(masks.admit(mask(99)), Some(7));
    }

    #[test]
    fn the_most_used_mask_is_asked_first_and_leads_while_it_answers_most() {
        let mut masks = PortMasks::default();
        let [one, two] = [1, 2].map(|bits| masks.admit(mask(bits)).unwrap());
        masks.added(one);
        masks.added(two);
        assert_eq!(masks.leader().map(|(slot, _)| slot), Some(one));
        (0..10).for_each(|_| masks.hit(two, 1));
        masks.lookups = 10;
        masks.rank();
        assert_eq!(masks.leader().map(|(slot, _)| slot), Some(two));
        masks.lookups = 1000;
        masks.rank();
        assert!(masks.leader().is_none());
    }
}
