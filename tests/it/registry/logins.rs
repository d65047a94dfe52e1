//! Basic at the real registry, Bearer at one with a token server beside it, secrets kept from strangers.

use std::sync::atomic::{AtomicUsize, Ordering};

use auroraboot::limits;
use auroraboot::source::credentials::Keychain;

use super::Puller;
use super::fake::{FakeRegistry, Reply, Request};
use super::real::{Blob, Guard, Image, RealRegistry, TAR, TempDir, noise};

fn image() -> Image {
    Image::new("amd64", vec![Blob::new(TAR, noise(50_000, 1)), Blob::new(TAR, noise(60_000, 2))])
}

fn keychain(dir: &TempDir, registry: &str, entry: &str) -> Keychain {
    Keychain::with_files(vec![dir.write("auth.json", &format!(r#"{{"auths": {{"{registry}": {entry}}}}}"#))])
}

#[test]
fn basic_with_the_right_login_and_clear_words_without() {
    let registry = RealRegistry::start("basic", Guard { htpasswd: Some(("bob", "hunter2")), tls: false });
    let image = image();
    registry.push(&image.layout(&registry.dir), "private/img:1");
    let (name, host) = (registry.name("private/img:1"), format!("127.0.0.1:{}", registry.port));

    let mut puller = Puller::new("basic");
    let refused = puller.refusal(&name);
    assert!(refused.contains("401") && refused.contains("/nowhere/config.json"), "{refused}");
    assert!(refused.contains(&name) && refused.contains("docker login"), "{refused}");

    puller.keychain = keychain(&registry.dir, &host, r#"{"username": "bob", "password": "wrong-one"}"#);
    let refused = puller.refusal(&name);
    assert!(refused.contains("auth.json") && refused.contains("bob"), "{refused}");
    assert!(!refused.contains("wrong-one"), "{refused}");

    // base64 of bob:hunter2
    puller.keychain = keychain(&registry.dir, &host, r#"{"auth": "Ym9iOmh1bnRlcjI="}"#);
    puller.pull_and_compare(&name, &image);
}

/// A registry that takes `Bearer <prefix><n>` and a token server on the same port that gives them out.
fn bearer(
    image: &Image,
    valid: impl Fn(&Request, &str) -> bool + Send + Sync + 'static,
    answer: impl Fn(usize) -> String + Send + Sync + 'static,
) -> FakeRegistry {
    let given = AtomicUsize::new(0);
    FakeRegistry::start(image, move |request, _| {
        if request.path.starts_with("/token") {
            return Some(Reply::new(200, answer(given.fetch_add(1, Ordering::SeqCst))));
        }
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if request.path == "/v2/" || valid(request, token) {
            return None;
        }
        let host = request.header("host").unwrap_or_default();
        let challenge = format!(
            r#"Bearer realm="http://{host}/token?x=1",service="it, the registry",scope="repository:it/img:pull,push""#
        );
        Some(Reply::new(401, "").header("www-authenticate", challenge))
    })
}

#[test]
fn bearer_tokens_are_fetched_with_the_login_and_renewed_when_they_end() {
    let image = image();
    // The blobs want the second token, as if the first had ended after the manifest.
    let valid = |request: &Request, token: &str| {
        if request.path.contains("/manifests/") { token == "t0" } else { token == "t1" }
    };
    let registry =
        bearer(&image, valid, |count| format!(r#"{{"access_token": "t{}", "expires_in": 300}}"#, count.min(1)));
    let dir = TempDir::new("bearer");
    let mut puller = Puller::new("bearer");
    let host = format!("127.0.0.1:{}", registry.port);
    puller.keychain = keychain(&dir, &host, r#"{"auth": "Ym9iOmh1bnRlcjI="}"#);
    puller.pull_and_compare(&registry.name(), &image);

    let tokens: Vec<Request> = registry.requests().into_iter().filter(|r| r.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2, "one for the manifest, one more for config and layers together");
    let query = "/token?x=1&service=it%2C%20the%20registry&scope=repository%3Ait%2Fimg%3Apull%2Cpush";
    assert_eq!(tokens[0].path, query);
    assert_eq!(tokens[0].header("authorization"), Some("Basic Ym9iOmh1bnRlcjI="));
}

#[test]
fn an_anonymous_token_needs_no_login() {
    let image = image();
    let registry = bearer(&image, |_, token| token == "anon", |_| r#"{"token": "anon"}"#.to_owned());
    Puller::new("anonymous").pull_and_compare(&registry.name(), &image);
    let token = registry.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(token.header("authorization"), None);
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let image = image();
    let registry = bearer(&image, |_, token| token == "a", |_| r#"{"access_token": "a"}"#.to_owned());
    let dir = TempDir::new("identity");
    let mut puller = Puller::new("identity");
    let host = format!("127.0.0.1:{}", registry.port);
    puller.keychain = keychain(&dir, &host, r#"{"identitytoken": "id/1"}"#);
    puller.pull_and_compare(&registry.name(), &image);
    let token = registry.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(token.method, "POST");
    assert!(
        token.body.contains("grant_type=refresh_token") && token.body.ends_with("refresh_token=id%2F1"),
        "{token:?}"
    );
}

#[test]
fn a_token_that_is_never_accepted_ends_in_a_refusal() {
    let image = image();
    let registry = bearer(&image, |_, _| false, |count| format!(r#"{{"token": "t{count}"}}"#));
    let refused = Puller::new("never").refusal(&registry.name());
    assert!(refused.contains("401") && refused.contains("does not exist, or needs a login"), "{refused}");
    assert!(registry.requests().len() < 12, "it gives up");
}

#[test]
fn a_redirect_to_another_host_gets_no_login() {
    let image = image();
    let blobs = FakeRegistry::start(&image, |_, _| None);
    let store = blobs.port;
    let registry = FakeRegistry::start(&image, move |request, _| {
        if request.path != "/v2/" && request.header("authorization").is_none() {
            return Some(Reply::new(401, "").header("www-authenticate", "Basic realm=\"it\""));
        }
        let to = format!("http://127.0.0.1:{store}{}?signature=1", request.path.replace("/v2/it/img/blobs", ""));
        request.path.contains("/blobs/").then(|| Reply::new(307, "moved").header("location", to))
    });
    let dir = TempDir::new("redirect");
    let mut puller = Puller::new("redirect");
    let host = format!("127.0.0.1:{}", registry.port);
    puller.keychain = keychain(&dir, &host, r#"{"auth": "Ym9iOmh1bnRlcjI="}"#);
    puller.pull_and_compare(&registry.name(), &image);
    let seen = blobs.requests();
    assert_eq!(seen.len(), 3, "the configuration and two layers");
    assert!(seen.iter().all(|request| request.path.ends_with("?signature=1")), "{seen:?}");
    assert!(seen.iter().all(|request| request.header("authorization").is_none()), "{seen:?}");
}

#[test]
fn a_challenge_from_where_a_redirect_leads_is_not_answered() {
    let image = image();
    let stranger = FakeRegistry::start(&image, |request, _| {
        let host = request.header("host").unwrap_or_default();
        Some(Reply::new(401, "").header("www-authenticate", format!(r#"Bearer realm="http://{host}/steal""#)))
    });
    let port = stranger.port;
    let registry = FakeRegistry::start(&image, move |request, _| {
        let to = format!("http://127.0.0.1:{port}{}", request.path);
        request.path.contains("/manifests/").then(|| Reply::new(307, "").header("location", to))
    });
    let dir = TempDir::new("stranger");
    let mut puller = Puller::new("stranger");
    puller.keychain = keychain(&dir, &format!("127.0.0.1:{}", registry.port), r#"{"auth": "Ym9iOmh1bnRlcjI="}"#);
    assert!(puller.refusal(&registry.name()).contains("401"));
    let seen = stranger.requests();
    assert!(seen.iter().all(|request| !request.path.contains("steal")), "{seen:?}");
}

#[test]
fn an_endless_token_is_not_read_to_its_end() {
    let image = image();
    let too_large = usize::try_from(limits::TOKEN_BYTES_MAX).unwrap() + 1;
    let registry = bearer(&image, |_, _| false, move |_| " ".repeat(too_large));
    let refused = Puller::new("endless-token").refusal(&registry.name());
    assert!(refused.contains("cannot get a token") && refused.contains("is larger than 1048576 bytes"), "{refused}");
}
