//! Path tables (ECMA-119 §9.4): every directory of a volume, parents before children.

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// `\0` for the root.
    pub identifier: &'a [u8],
    /// Block of its first record, counted from the volume's base.
    pub location: u32,
    /// Number of its parent in the table, from 1; the root is its own.
    pub parent: u16,
}

/// The two byte orders: type L and type M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

pub(super) fn encode<'a>(entries: impl Iterator<Item = Entry<'a>>, order: Order) -> Vec<u8> {
    let mut table = Vec::new();
    for Entry { identifier, location, parent } in entries {
        table.extend_from_slice(&[identifier.len().to_le_bytes()[0], 0]);
        match order {
            Order::Little => {
                table.extend_from_slice(&location.to_le_bytes());
                table.extend_from_slice(&parent.to_le_bytes());
            }
            Order::Big => {
                table.extend_from_slice(&location.to_be_bytes());
                table.extend_from_slice(&parent.to_be_bytes());
            }
        }
        table.extend_from_slice(identifier);
        if identifier.len() % 2 == 1 {
            table.push(0);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_a_root_and_a_directory() {
        let entries = || {
            let root = Entry { identifier: &[0], location: 0x1234, parent: 1 };
            [root, Entry { identifier: b"BOOT", location: 0x1235, parent: 1 }].into_iter()
        };
        let little = encode(entries(), Order::Little);
        assert_eq!(little, *b"\x01\0\x34\x12\0\0\x01\0\0\0\x04\0\x35\x12\0\0\x01\0BOOT");
        let big = encode(entries(), Order::Big);
        assert_eq!(big, *b"\x01\0\0\0\x12\x34\0\x01\0\0\x04\0\0\0\x12\x35\0\x01BOOT");
    }
}
