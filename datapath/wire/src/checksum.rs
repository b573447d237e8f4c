//! The Internet checksum (RFC 1071), its incremental update (RFC 1624), pseudo headers, and SCTP's CRC32c (RFC 9260
//! appendix A).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::IpProtocol;

/// A ones' complement sum in the making. Bytes may be added in runs of any length: a run that starts at an odd position
/// is swapped into place (RFC 1071 §2.B).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// The sum of no bytes.
    pub const ZERO: Sum = Sum { total: 0, odd: false };

    /// Adds `bytes`.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks();
        self.add_blocks(blocks.iter().copied(), rest)
    }

    /// Adds `blocks`, then `rest`: for bytes that cannot be had as one slice. Up to 4 GiB.
    #[inline]
    #[must_use]
    pub fn add_blocks(mut self, blocks: impl Iterator<Item = [u8; BLOCK_BYTES]>, rest: &[u8]) -> Self {
        let sum = sum_words(blocks, rest);
        self.total += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= rest.len() % 2 == 1;
        self
    }

    /// Adds one 16-bit word. Only between runs of even length in all.
    #[inline]
    #[must_use]
    pub fn add_word(mut self, word: u16) -> Self {
        self.total += u64::from(word);
        self
    }

    /// The sum folded to 16 bits: what a partial checksum field holds.
    #[inline]
    pub fn fold(self) -> u16 {
        fold(self.total)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum for UDP, where 0 means "none" and is sent as 0xffff (RFC 768).
    #[inline]
    pub fn checksum_nonzero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    let mut sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Bytes summed by one step of [`Sum::add_blocks`]: wide enough for the compiler to use vectors.
pub const BLOCK_BYTES: usize = 32;

/// The folded sum of `blocks` and `rest` as big-endian words, the last one padded with zero.
#[inline]
fn sum_words(blocks: impl Iterator<Item = [u8; BLOCK_BYTES]>, rest: &[u8]) -> u16 {
    // Ones' complement sums do not depend on byte order but for a final swap, so native words are summed: 32-bit ones,
    // of which a lane takes 2^32 before it overflows, and all lanes together 2^29 each.
    let mut lanes = [0_u64; BLOCK_BYTES / 4];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (pairs, last) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = last {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// The checksum of `bytes` by themselves (an IPv4 header, an ICMP message). 0 if `bytes` contain their right checksum.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(bytes).checksum()
}

/// The sum of the IPv4 pseudo header (RFC 9293 §3.1) for `len` bytes of transport header and payload.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol, len: u16) -> Sum {
    Sum::ZERO
        .add_bytes(&source.octets())
        .add_bytes(&destination.octets())
        .add_word(u16::from(protocol.0))
        .add_word(len)
}

/// The sum of the IPv6 pseudo header (RFC 8200 §8.1) for `len` bytes of transport header and payload.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: IpProtocol, len: u32) -> Sum {
    Sum::ZERO
        .add_bytes(&source.octets())
        .add_bytes(&destination.octets())
        .add_bytes(&len.to_be_bytes())
        .add_word(u16::from(protocol.0))
}

/// The checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624 equation 3).
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// [`update`] for a run of words: `old` and `new` are of the same even length and start at an even offset.
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let old_sum = Sum::ZERO.add_bytes(old).fold();
    let new_sum = Sum::ZERO.add_bytes(new).fold();
    update(checksum, old_sum, new_sum)
}

/// CRC32c (Castagnoli, reflected 0x1edc6f41) of `runs`, one after the other.
pub fn crc32c<'a>(runs: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = runs.into_iter().flatten();
    !bytes.fold(u32::MAX, |crc, byte| CRC32C_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// The CRC32c after bytes under it changed from `old` to `new`, which are of the same length, with `behind` bytes after
/// them. A CRC is linear: what differs makes the same difference wherever it lies, but for the zeros that follow it.
pub fn update_crc32c(crc: u32, old: &[u8], new: &[u8], behind: usize) -> u32 {
    let differences = old.iter().zip(new).map(|(old, new)| old ^ new);
    let difference =
        differences.fold(0, |crc, byte| CRC32C_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8));
    crc ^ crc32c_zeros(difference, behind)
}

/// A remainder after `bytes` zero bytes more: times x^8 for each, by repeated squaring.
fn crc32c_zeros(mut remainder: u32, mut bytes: usize) -> u32 {
    // In a reflected remainder, the top bit is x^0.
    let mut power = 1 << 23;
    while bytes > 0 {
        if bytes & 1 == 1 {
            remainder = crc32c_multiply(remainder, power);
        }
        power = crc32c_multiply(power, power);
        bytes >>= 1;
    }
    remainder
}

/// The product of two remainders.
fn crc32c_multiply(one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    for power in 0..32 {
        if one << power >> 31 == 1 {
            product ^= other;
        }
        other = if other & 1 == 1 { other >> 1 ^ CRC32C_POLYNOMIAL } else { other >> 1 };
    }
    product
}

/// Castagnoli's, reflected.
const CRC32C_POLYNOMIAL: u32 = 0x82f6_3b78;

static CRC32C_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ CRC32C_POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn checksum_of_any_bytes_equals_the_naive_sum(bytes in vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn sum_in_runs_equals_the_sum_in_one(bytes in vec(any::<u8>(), 0..300), cuts in vec(0_usize..300, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut sum = Sum::ZERO;
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                sum = sum.add_bytes(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(sum.checksum(), naive(&bytes));
        }

        #[test]
        fn update_equals_a_new_sum(mut bytes in vec(any::<u8>(), 2..80), at: proptest::sample::Index, new: u16) {
            let at = at.index(bytes.len() / 2) * 2;
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let after = checksum(&bytes);
            let updated = update(before, old, new);
            // 0 and 0xffff are the same number in ones' complement.
            prop_assert!(updated == after || updated == !after && (after == 0 || after == 0xffff));
        }
    }

    #[test]
    fn checksum_of_the_rfc_1071_example_is_its_result() {
        assert_eq!(Sum::ZERO.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).fold(), 0xddf2);
    }

    #[test]
    fn crc32c_of_the_check_string_is_its_check_value() {
        assert_eq!(crc32c([&b"12345"[..], b"6789"]), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn update_of_a_crc_equals_a_new_one(
            mut bytes in vec(any::<u8>(), 1..300),
            at: proptest::sample::Index,
            new in vec(any::<u8>(), 1..8),
        ) {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + new.len());
            let before = crc32c([&bytes[..]]);
            let old = bytes[at..end].to_vec();
            bytes[at..end].copy_from_slice(&new[..end - at]);
            let updated = update_crc32c(before, &old, &bytes[at..end], bytes.len() - end);
            prop_assert_eq!(updated, crc32c([&bytes[..]]));
        }
    }

    #[test]
    fn udp_checksum_of_zero_is_sent_as_all_ones() {
        assert_eq!(Sum::ZERO.add_word(0xffff).checksum_nonzero(), 0xffff);
    }
}
