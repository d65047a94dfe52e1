//! Shell patterns as modules.alias uses them: `*`, `?` and `[…]` (fnmatch(3) without flags).

/// Whether all of `text` fits `pattern`. Takes at most `pattern.len() * text.len()` steps, whatever the pattern.
#[must_use]
pub fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where to go on when what follows the last star did not fit: behind the star, one byte of text further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, read));
            continue;
        }
        if read == text.len() && at == pattern.len() {
            return true;
        }
        match text.get(read).and_then(|byte| one(&pattern[at..], *byte)) {
            Some(length) => {
                at += length;
                read += 1;
            }
            None => match retry {
                Some((behind_star, from)) if from < text.len() => {
                    (at, read) = (behind_star, from + 1);
                    retry = Some((behind_star, from + 1));
                }
                _ => return false,
            },
        }
    }
}

/// Length of the pattern's first element when it takes `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => set(pattern, byte),
        first if *first == byte => Some(1),
        _ => None,
    }
}

/// `[abc]`, `[a-f]`, `[!0-9]`. A bracket that nothing closes is none of these, and takes nothing.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let is_negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = 1 + usize::from(is_negated);
    // A bracket that comes first stands for itself.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    let mut members = &pattern[start..end];
    let mut is_member = false;
    while let Some((first, rest)) = members.split_first() {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (last, rest),
            _ => (first, rest),
        };
        is_member |= (*first..=*last).contains(&byte);
        members = rest;
    }
    (is_member != is_negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_aliases() {
        for (pattern, text, expected) in [
            ("pci:v00008086d0000100Esv*sd*bc*sc*i*", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", true),
            ("pci:v00008086d0000100Fsv*sd*bc*sc*i*", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", false),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("usb:v0525pA4A2d*dc*dsc*dp*ic*isc*ip*in*", "usb:v0525pA4A2d0000dc02dsc00dp00ic02isc02ipFFin00", true),
            ("of:N*T*Cbrcm,bcm2711-genet-v5", "of:NethernetT(null)Cbrcm,bcm2711-genet-v5", true),
            ("of:N*T*Cbrcm,bcm2711-genet-v5C*", "of:NethernetT(null)Cbrcm,bcm2711-genet-v5", false),
            ("acpi*:PNP0501:*", "acpi:PNP0501:", true),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00", true),
            ("usb:v0BDAp8153d[0-3]*dc*", "usb:v0BDAp8153d3000dc00", true),
            ("usb:v0BDAp8153d[0-2]*dc*", "usb:v0BDAp8153d3000dc00", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn stars_and_brackets_at_their_edges() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**a**", "bab", true),
            ("a?", "a", false),
            ("[]]", "]", true),
            ("[!a]", "b", true),
            ("[!a]", "a", false),
            ("[a", "a", false),
            ("[", "[", false),
            ("[a-]", "-", true),
            ("[9-0]", "5", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXbcd", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "*a".repeat(500) + "b";
        let began = std::time::Instant::now();
        assert!(!fits(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
        assert!(began.elapsed().as_secs() < 5);
    }
}
