//! Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY.
//!
//! ureq's own reading of the environment is not used: it takes `HTTPS_PROXY` for `http://` addresses too, so a proxy for
//! the Internet would also be asked for the plain registry next door. The rules here are those of Go's `httpproxy`.

use std::fmt;
use std::net::IpAddr;

use super::url::{Scheme, Url, is_loopback};

/// The proxies of the environment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Comma-separated hosts that are reached directly.
    pub none: String,
}

impl fmt::Debug for Proxies {
    /// Addresses of proxies may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, https) = (self.http.is_some(), self.https.is_some());
        f.debug_struct("Proxies").field("http", &http).field("https", &https).field("none", &self.none).finish()
    }
}

impl Proxies {
    /// Reads the variables through `variable`; of each, lower case wins over upper case, as in curl.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.or_else(|| variable(&name.to_ascii_uppercase())).filter(|value| !value.is_empty())
        };
        let all = read("all_proxy");
        Self {
            http: read("http_proxy").or_else(|| all.clone()),
            https: read("https_proxy").or(all),
            none: read("no_proxy").unwrap_or_default(),
        }
    }

    /// The proxy for an address; never one for this machine itself.
    #[must_use]
    pub fn for_url(&self, url: &Url) -> Option<&str> {
        let proxy = match url.scheme {
            Scheme::Http => self.http.as_deref()?,
            Scheme::Https => self.https.as_deref()?,
        };
        let direct = is_loopback(&url.authority)
            || self.none.split([',', ' ']).any(|entry| matches(entry.trim(), url.host(), url.port()));
        (!direct).then_some(proxy)
    }
}

/// Host and port of a proxy's address, without the login that may stand before them.
#[must_use]
pub fn authority(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// One entry of NO_PROXY: `*`, a host (its subdomains too), `.domain`, `*.domain`, an address, a CIDR; each with `:port` or not.
fn matches(entry: &str, host: &str, port: u16) -> bool {
    if entry.is_empty() || entry == "*" {
        return entry == "*";
    }
    if let (Ok(address), Some((network, bits))) = (host.parse(), entry.split_once('/')) {
        return in_network(address, network, bits).unwrap_or(false);
    }
    // A lone colon separates a port; more of them are IPv6.
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, wanted)) if !name.contains(':') || name.ends_with(']') => (name, wanted.parse().ok()),
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted: u16| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    let domain = name.trim_start_matches('*').trim_start_matches('.');
    let only_below = name.starts_with(['*', '.']);
    let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    !domain.is_empty() && (below || !only_below && host == domain)
}

fn in_network(address: IpAddr, network: &str, bits: &str) -> Option<bool> {
    let bits: u32 = bits.parse().ok()?;
    match (address, network.parse().ok()?) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Some(a.to_bits() & mask == n.to_bits() & mask)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Some(a.to_bits() & mask == n.to_bits() & mask)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose<'a>(proxies: &'a Proxies, url: &str) -> Option<&'a str> {
        proxies.for_url(&url.parse().unwrap())
    }

    #[test]
    fn each_scheme_has_its_own_proxy() {
        let env = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://p:1".to_owned()),
            "http_proxy" => Some("http://q:2".to_owned()),
            "HTTP_PROXY" => Some("http://upper:3".to_owned()),
            _ => None,
        };
        let proxies = Proxies::from_env(env);
        assert_eq!(choose(&proxies, "https://quay.io/"), Some("http://p:1"));
        assert_eq!(choose(&proxies, "http://quay.io/"), Some("http://q:2"));
        assert_eq!(choose(&proxies, "http://127.0.0.1:5000/"), None, "never for this machine");
        let all = Proxies::from_env(|name| (name == "ALL_PROXY").then(|| "socks5://s:1".to_owned()));
        assert_eq!(choose(&all, "http://a.io/"), Some("socks5://s:1"));
        assert_eq!(Proxies::from_env(|_| Some(String::new())), Proxies::default(), "empty means unset");
    }

    #[test]
    fn no_proxy_knows_names_addresses_networks_and_ports() {
        for (entry, url, direct) in [
            ("*", "https://quay.io/", true),
            ("quay.io", "https://quay.io/", true),
            ("quay.io", "https://CDN.Quay.io/", true),
            ("quay.io", "https://notquay.io/", false),
            (".quay.io", "https://quay.io/", false),
            (".quay.io", "https://cdn.quay.io/", true),
            ("*.quay.io", "https://cdn.quay.io/", true),
            ("quay.io:5000", "https://quay.io/", false),
            ("quay.io:5000", "https://quay.io:5000/", true),
            ("10.0.0.0/8", "https://10.1.2.3/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("0.0.0.0/0", "https://11.1.2.3/", true),
            ("10.0.0.0/99", "https://10.0.0.0/", false),
            ("fd00::/8", "https://[fd00::1]/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", true),
            ("a.io, quay.io", "https://quay.io/", true),
            ("", "https://quay.io/", false),
            (".", "https://quay.io/", false),
        ] {
            let proxies = Proxies { https: Some("http://p".into()), none: entry.into(), ..Proxies::default() };
            assert_eq!(choose(&proxies, url).is_none(), direct, "{entry} for {url}");
        }
    }

    #[test]
    fn a_password_of_a_proxy_is_not_shown() {
        let proxies = Proxies { http: Some("http://u:secret@p".into()), ..Proxies::default() };
        assert!(!format!("{proxies:?}").contains("secret"));
        for address in ["http://u:secret@p:1", "u:s/e@cret@p:1", "socks5://p:1/", "p:1"] {
            assert_eq!(authority(address), "p:1", "{address}");
        }
    }
}
