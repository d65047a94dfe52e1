//! `console.password`: what consoles ask for.

use crate::units::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// The sha256 of the password, whichever way it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Digest);

// By hand: a short password can be guessed from its digest.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// In front of a digest.
const SHA256: &str = "sha256:";

impl FromStr for Password {
    /// It begins as a digest, and is none.
    type Err = ();

    /// The password itself, or `sha256:` and what `sha256sum` prints: the digits, perhaps a file's name behind them.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_digest = text.get(..SHA256.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(SHA256));
        if !is_digest {
            return Ok(Self::of(text));
        }
        let digits = text[SHA256.len()..].split_ascii_whitespace().next().unwrap_or_default();
        format!("{SHA256}{digits}").parse().map(Self).map_err(drop)
    }
}

impl Password {
    fn of(text: &str) -> Self {
        Self(Digest(Sha256::digest(text).into()))
    }

    /// Whether this was typed. Digests are compared: the time it takes tells nothing of the password.
    #[must_use]
    pub fn is(&self, typed: &str) -> bool {
        *self == Self::of(typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_password_as_it_is_or_as_sha256sum_prints_it() {
        let upper = OF_SECRET.to_uppercase();
        let given = ["secret".to_owned(), format!("sha256:{OF_SECRET}"), format!("SHA256:{upper}  -")];
        for given in given {
            let password: Password = given.parse().unwrap();
            assert!(password.is("secret") && !password.is("Secret") && !password.is(""), "{given}");
            assert!(!format!("{password:?}").contains("secret"));
        }
        let password: Password = OF_SECRET.parse().unwrap();
        assert!(password.is(OF_SECRET) && !password.is("secret"), "without the prefix it is a password as any");
    }

    #[test]
    fn what_begins_as_a_digest_and_is_none_would_let_nobody_in() {
        let cut = format!("sha256:{}", &OF_SECRET[1..]);
        for bad in ["sha256:", "sha256:abcd", "sha256: -", "sha256:zz", &cut] {
            assert_eq!(bad.parse::<Password>(), Err(()), "{bad}");
        }
    }
}
