//! Proving who we are: `WWW-Authenticate` challenges, Basic and Bearer (RFC 7235, Docker's token specification).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::client::{self, Client, Header, Trust, basic};
use super::credentials::{Credential, Login};
use super::secret::Secret;
use super::url::{Scheme, Url, percent_encode};
use crate::limits;

/// A new token is fetched this long before the old one ends, so that none ends on its way.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How we are called by token servers that ask.
const CLIENT_ID: &str = "auroraboot";

/// One way in which a server says it wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Why there is no authorization to send.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the registry wants a kind of login that is not known; known are Basic and Bearer")]
    UnknownScheme,
    #[error("the registry names no valid token server")]
    Realm,
    #[error(
        "the token server {0} speaks plain HTTP, so no password is sent to it; set allow-insecure-registries to send it"
    )]
    PlainRealm(String),
    #[error("cannot get a token")]
    Unreachable(#[source] client::Error),
    #[error("the token server {server} answers {status}")]
    Refused { server: String, status: u16 },
    #[error("the answer of the token server {0} holds no token")]
    NoToken(String),
}

impl Error {
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.is_transient(),
            Self::Refused { status, .. } => super::retry::is_transient_status(*status),
            _ => false,
        }
    }
}

/// Reads all challenges of a response; parts that are none are skipped.
///
/// Commas separate challenges and parameters alike, and stand inside quotes (`scope="repository:a:pull,push"`).
#[must_use]
pub fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.flat_map(parse_header).collect()
}

fn parse_header(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        match tail.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, tail) = parse_value(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = tail;
            }
            None => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = tail;
            }
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") }),
        _ => None,
    }
}

/// A token or a quoted string with its escapes (RFC 9110 §5.6.4), and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A bearer token and how long it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub value: Secret,
    pub lifetime: Duration,
}

/// Reads a token server's answer: `token` (Docker) or `access_token` (OAuth2), whichever is there.
#[must_use]
pub fn parse_token(body: &[u8]) -> Option<Token> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let set = |token: Option<String>| token.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
    let value = Secret::new(set(answer.token).or_else(|| set(answer.access_token))?);
    let lifetime = answer.expires_in.map_or(limits::TOKEN_LIFETIME, Duration::from_secs);
    Some(Token { value, lifetime: lifetime.max(limits::TOKEN_LIFETIME) })
}

/// What is sent along with each request, renewed when it ends; shared by all downloads of an image.
#[derive(Debug)]
pub struct Authorizer {
    credential: Option<Credential>,
    /// Used when the challenge names no scope.
    scope: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    header: Option<Secret>,
    /// The challenge that led to the token, and when it must be answered again.
    renew: Option<(Challenge, Instant)>,
}

impl Authorizer {
    #[must_use]
    pub fn new(credential: Option<Credential>, repository: &str) -> Self {
        Self { credential, scope: format!("repository:{repository}:pull"), state: Mutex::default() }
    }

    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The `Authorization` header to send now, after renewing a token that is about to end.
    ///
    /// # Errors
    /// When the token server does not give a new one.
    pub fn header(&self, client: &Client, now: Instant) -> Result<Option<Secret>, Error> {
        let mut state = self.lock();
        let due = state.renew.as_ref().filter(|(_, at)| *at <= now).map(|(challenge, _)| challenge.clone());
        if let Some(challenge) = due {
            *state = self.authorize(client, &challenge, now)?;
        }
        Ok(state.header.clone())
    }

    /// Answers a 401. `sent` is what the refused request carried: when another thread has got something newer since,
    /// that is used. `false` means that there is nothing better to send.
    ///
    /// # Errors
    /// When the token server does not give a token.
    pub fn answer(
        &self,
        client: &Client,
        challenges: &[Challenge],
        sent: Option<&Secret>,
        now: Instant,
    ) -> Result<bool, Error> {
        let mut state = self.lock();
        if state.header.as_ref() != sent {
            return Ok(true);
        }
        // Bearer first: a registry that offers both prefers it, and it can be had without a login.
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or_else(|| challenges.first()) else { return Err(Error::UnknownScheme) };
        let renewed = self.authorize(client, challenge, now)?;
        let better = renewed.header.is_some() && renewed.header.as_ref() != sent;
        *state = renewed;
        Ok(better)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorize(&self, client: &Client, challenge: &Challenge, now: Instant) -> Result<State, Error> {
        let login = self.credential.as_ref().map(|credential| &credential.login);
        match (challenge, login) {
            (Challenge::Basic, Some(Login::Password { user, password })) => {
                let header = Secret::new(basic(&format!("{user}:{}", password.expose())));
                Ok(State { header: Some(header), renew: None })
            }
            (Challenge::Basic, _) => Ok(State::default()),
            (Challenge::Bearer { .. }, Some(Login::Registry(token))) => {
                Ok(State { header: Some(bearer(token)), renew: None })
            }
            (Challenge::Bearer { realm, service, scope }, login) => {
                let scope = scope.as_deref().unwrap_or(&self.scope);
                let token = fetch_token(client, realm, service.as_deref(), scope, login)?;
                let at = now + token.lifetime.saturating_sub(EXPIRY_MARGIN);
                Ok(State { header: Some(bearer(&token.value)), renew: Some((challenge.clone(), at)) })
            }
        }
    }
}

fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// GET with Basic for a password (or nobody), POST of a form for an identity token.
fn fetch_token(
    client: &Client,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    login: Option<&Login>,
) -> Result<Token, Error> {
    let url: Url = realm.parse().map_err(|_| Error::Realm)?;
    let server = url.authority.clone();
    if login.is_some() && url.scheme == Scheme::Http && !client.may_send_secrets_plainly(&url) {
        return Err(Error::PlainRealm(server));
    }
    let mut query = format!("scope={}", percent_encode(scope));
    if let Some(service) = service {
        query = format!("service={}&{query}", percent_encode(service));
    }
    let response = match login {
        Some(Login::Identity(token)) => {
            let token = percent_encode(token.expose());
            let form = format!("grant_type=refresh_token&client_id={CLIENT_ID}&{query}&refresh_token={token}");
            client.post_form(&url, &form, Trust::AsConfigured)
        }
        login => {
            let basic = match login {
                Some(Login::Password { user, password }) => Some(basic(&format!("{user}:{}", password.expose()))),
                _ => None,
            };
            let headers: Vec<Header<'_>> = basic.iter().map(|value| ("authorization", value.as_str())).collect();
            let separator = if url.path.contains('?') { '&' } else { '?' };
            let url = Url { path: format!("{}{separator}{query}", url.path), ..url };
            client.get(&url, &headers, Trust::AsConfigured)
        }
    };
    let response = response.map_err(Error::Unreachable)?;
    match response.status() {
        200 => {
            let body = response.read_to_vec(limits::TOKEN_BYTES_MAX).map_err(Error::Unreachable)?;
            parse_token(&body).ok_or(Error::NoToken(server))
        }
        status => Err(Error::Refused { server, status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Vec<Challenge> {
        parse_challenges(std::iter::once(header))
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn commas_inside_quotes_belong_to_the_value() {
        let header = r#"Bearer realm="https://a.io/token",service="r.io",scope="repository:x/y:pull,push""#;
        assert_eq!(parse(header), [bearer("https://a.io/token", Some("r.io"), Some("repository:x/y:pull,push"))]);
    }

    #[test]
    fn several_challenges_in_one_header_and_in_several() {
        let header = r#"Basic realm="a, b", BEARER Realm = "https://t/" , service=plain"#;
        let both = [Challenge::Basic, bearer("https://t/", Some("plain"), None)];
        assert_eq!(parse(header), both);
        let headers = [r#"Negotiate"#, r#"Basic realm="x""#, r#"Bearer realm="https://t/",service=plain"#];
        assert_eq!(parse_challenges(headers.into_iter()), both);
    }

    #[test]
    fn escapes_and_broken_headers() {
        assert_eq!(parse(r#"Bearer realm="https://t/\"q\"""#), [bearer(r#"https://t/"q""#, None, None)]);
        assert_eq!(parse(r#"Bearer realm="https://t/"#), [bearer("https://t/", None, None)]);
        for header in ["", ",,,", "Bearer", "Bearer service=x", "=x", "\"", "Bearer realm", "é", "Basic=1"] {
            assert_eq!(parse(header), [], "{header}");
        }
        let base = r#"Bearer realm="https://t/",scope="a\"b,c", Basic realm=x"#;
        for cut in 0..base.len() {
            let _ = parse(&base[..cut]); // ends, whatever is cut off
        }
    }

    #[test]
    fn tokens_under_either_name_with_a_lifetime_of_a_minute_at_least() {
        let token =
            |body: &str| parse_token(body.as_bytes()).map(|t| (t.value.expose().to_owned(), t.lifetime.as_secs()));
        assert_eq!(token(r#"{"token":"a"}"#), Some(("a".into(), 60)));
        assert_eq!(token(r#"{"access_token":"b","expires_in":300}"#), Some(("b".into(), 300)));
        assert_eq!(token(r#"{"token":"","access_token":"b","expires_in":1}"#), Some(("b".into(), 60)));
        for body in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, "[]", r#"{"token":1}"#] {
            assert_eq!(token(body), None, "{body}");
        }
    }

    #[test]
    fn nothing_that_is_debugged_shows_a_secret() {
        let login = Login::Password { user: "bob".into(), password: Secret::new("hunter2") };
        let credential = Credential { login, origin: "file".into() };
        let authorizer = Authorizer::new(Some(credential), "a/b");
        authorizer.lock().header = Some(Secret::new("Basic aHVudGVyMg=="));
        let shown = format!("{authorizer:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("aHVu"), "{shown}");
    }
}
