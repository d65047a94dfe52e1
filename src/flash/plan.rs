//! In which order an image goes onto a stick, in pieces that the device takes.

use crate::limits::{FLASH_HEAD_BYTES, FLASH_PIECE_BYTES, FLASH_TAIL_BYTES};
use crate::storage::Extent;

/// Where everything goes. All but `image` are multiples of the device's logical block.
///
/// ```text
///  0        head                              padded        tail.offset        disk's end
///  │ zeroed first, │ body: written, read back │ left alone  │ zeroed           │
///  │ written last  │                          │             │                  │
/// ```
/// The image's own backup GPT stays at the image's end, as in every hybrid ISO: a disk's end is not known when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the image.
    pub image: u64,
    /// The image and zeroes up to a whole block.
    pub padded: u64,
    /// Bytes that are withheld until the rest is known to be good.
    pub head: u64,
    /// What is wiped at the device's end; empty when the image reaches there.
    pub tail: Extent,
}

impl Plan {
    /// `None` when the image does not fit. `block` is the device's logical block size.
    #[must_use]
    pub fn new(image: u64, disk: u64, block: u64) -> Option<Self> {
        let padded = image.checked_next_multiple_of(block)?;
        let tail = disk.saturating_sub(FLASH_TAIL_BYTES).max(padded).checked_next_multiple_of(block)?;
        let fits = block <= FLASH_HEAD_BYTES && padded <= disk;
        fits.then(|| Self {
            image,
            padded,
            head: padded.min(FLASH_HEAD_BYTES),
            tail: Extent { offset: tail, length: disk.saturating_sub(tail) },
        })
    }

    /// What stands between the head and the end of the image, piece by piece.
    pub fn body(&self) -> impl Iterator<Item = Extent> + Send + use<> {
        pieces(Extent { offset: self.head, length: self.padded - self.head })
    }

    /// Bytes that a good flash moves to or from the stick: written once and read once.
    #[must_use]
    pub const fn work(&self) -> u64 {
        self.padded.saturating_mul(2)
    }
}

/// `whole` in pieces of [`FLASH_PIECE_BYTES`] at most; all but the first begin at a multiple of that.
pub fn pieces(whole: Extent) -> impl Iterator<Item = Extent> + Send + use<> {
    let (mut at, end) = (whole.offset, whole.offset.saturating_add(whole.length));
    std::iter::from_fn(move || {
        let piece = FLASH_PIECE_BYTES as u64;
        let next = (at / piece + 1).saturating_mul(piece).min(end);
        let extent = Extent { offset: at, length: next.checked_sub(at)? };
        at = next;
        (extent.length > 0).then_some(extent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn body(plan: &Plan) -> Vec<(u64, u64)> {
        plan.body().map(|piece| (piece.offset, piece.length)).collect()
    }

    #[test]
    fn the_head_is_withheld_the_body_in_large_pieces_and_the_end_wiped() {
        let plan = Plan::new(9 * MIB + 2048, 64 * MIB, 512).unwrap();
        assert_eq!((plan.padded, plan.head), (9 * MIB + 2048, MIB));
        assert_eq!(body(&plan), [(MIB, 3 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, MIB + 2048)]);
        assert_eq!(plan.tail, Extent { offset: 63 * MIB, length: MIB });
    }

    #[test]
    fn a_block_of_4096_bytes_pads_the_end() {
        let plan = Plan::new(3 * MIB + 2048, 4 * MIB, 4096).unwrap();
        assert_eq!(plan.padded, 3 * MIB + 4096);
        assert_eq!(plan.tail, Extent { offset: 3 * MIB + 4096, length: MIB - 4096 }, "the ISO itself is not wiped");
    }

    #[test]
    fn an_iso_that_fits_exactly_leaves_nothing_to_wipe_and_a_larger_one_does_not_fit() {
        let plan = Plan::new(4 * MIB, 4 * MIB, 512).unwrap();
        assert_eq!(plan.tail.length, 0);
        assert_eq!(Plan::new(4 * MIB + 1, 4 * MIB, 512), None);
        assert_eq!(Plan::new(u64::MAX, u64::MAX, 512), None);
        let tiny = Plan::new(40_960, MIB / 2, 512).unwrap();
        assert_eq!((tiny.head, body(&tiny)), (40_960, vec![]), "all of it is head");
        assert_eq!(tiny.tail, Extent { offset: 40_960, length: MIB / 2 - 40_960 });
    }

    #[test]
    fn pieces_cover_everything_once() {
        let whole = Extent { offset: 3 * MIB, length: 18 * MIB + 512 };
        let mut at = whole.offset;
        for piece in pieces(whole) {
            assert_eq!(piece.offset, at);
            assert!(piece.length <= FLASH_PIECE_BYTES as u64);
            at += piece.length;
        }
        assert_eq!(at, whole.offset + whole.length);
    }
}
