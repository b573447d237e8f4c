//! Which station address does an interface get when nobody chose one?

use crate::{AttachmentId, MacAddr};

/// A locally administered unicast address (IEEE 802-2014 §8.4), the same for the same attachment and `attempt`, so that a
/// repeated ADD gives the same one. The caller counts `attempt` up while the address is taken.
pub fn station_address(id: &AttachmentId, attempt: u32) -> MacAddr {
    let parts: [&[u8]; 4] =
        [id.container.as_str().as_bytes(), b"/", id.interface.as_str().as_bytes(), &attempt.to_be_bytes()];
    let hash = mix(parts
        .into_iter()
        .flatten()
        .fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)));
    let [.., a, b, c, d, e, f] = hash.to_be_bytes();
    MacAddr([(a & 0xfc) | 0x02, b, c, d, e, f])
}

// FNV-1a, 64 bits. Not the standard library's hasher: that may change with the compiler, and an address must not.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Spreads the last bytes' influence over all bits (MurmurHash3's finalizer).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, interface: &str) -> AttachmentId {
        AttachmentId { container: container.parse().unwrap(), interface: interface.parse().unwrap() }
    }

    #[test]
    fn station_address_when_asked_again_is_the_same() {
        assert_eq!(station_address(&id("c1", "eth0"), 0), station_address(&id("c1", "eth0"), 0));
        // Written down: an upgrade must not change the address of a repeated ADD.
        assert_eq!(station_address(&id("c1", "eth0"), 0).to_string(), "9a:8a:a2:76:86:10");
    }

    #[test]
    fn station_address_of_many_pods_is_local_unicast_and_distinct() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..2000 {
            let mac = station_address(&id(&format!("c{n}"), "eth0"), 0);
            assert!(mac.is_unicast() && mac.0[0] & 2 == 2, "{mac}");
            seen.insert(mac);
        }
        seen.insert(station_address(&id("c0", "eth1"), 0));
        seen.insert(station_address(&id("c0", "eth0"), 1));
        assert_eq!(seen.len(), 2002);
    }
}
