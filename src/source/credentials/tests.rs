//! Tests of [`super`]: files as Docker and podman write them, and helpers that are shell scripts.

use super::*;

/// A keychain of one file, which goes with it.
struct TestKeychain(Keychain, PathBuf);

impl std::ops::Deref for TestKeychain {
    type Target = Keychain;

    fn deref(&self) -> &Keychain {
        &self.0
    }
}

impl Drop for TestKeychain {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

fn keychain(name: &str, json: &str) -> TestKeychain {
    let dir = std::env::temp_dir().join(format!("auroraboot-credentials-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}.json"));
    std::fs::write(&path, json).unwrap();
    TestKeychain(Keychain::with_files(vec![dir.join("missing.json"), path]), dir)
}

fn find(keychain: &Keychain, image: &str) -> Option<String> {
    let credential = keychain.find(&image.parse().unwrap()).unwrap()?;
    Some(match credential.login {
        Login::Password { user, password } => format!("{user}:{}", password.expose()),
        Login::Identity(token) => format!("identity {}", token.expose()),
        Login::Registry(token) => format!("registry {}", token.expose()),
    })
}

#[test]
fn the_longest_prefix_of_the_repository_wins() {
    let keychain = keychain(
        "prefix",
        r#"{"auths": {
            "quay.io": {"auth": "aG9zdDpw"},
            "quay.io/team": {"auth": "dGVhbTpwOnE="},
            "https://ghcr.io/v2/": {"username": "u", "password": "p"},
            "empty.io": {},
            "Reg.Example:5000": {"auth": "eDp5"}
        }}"#,
    );
    assert_eq!(find(&keychain, "quay.io/other/img").as_deref(), Some("host:p"));
    assert_eq!(find(&keychain, "quay.io/team/img").as_deref(), Some("team:p:q"), "a password may hold colons");
    assert_eq!(find(&keychain, "quay.io/teams/img").as_deref(), Some("host:p"));
    assert_eq!(find(&keychain, "ghcr.io/a").as_deref(), Some("u:p"));
    assert_eq!(find(&keychain, "reg.example:5000/a").as_deref(), Some("x:y"));
    assert_eq!(find(&keychain, "reg.example/a"), None, "the port is part of the name");
    assert_eq!(find(&keychain, "empty.io/a"), None);
}

#[test]
fn docker_hub_goes_by_all_its_names() {
    for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"] {
        let keychain =
            keychain(&format!("hub{}", key.len()), &format!(r#"{{"auths": {{"{key}": {{"auth": "eDp5"}}}}}}"#));
        assert_eq!(find(&keychain, "ubuntu").as_deref(), Some("x:y"), "{key}");
    }
}

#[test]
fn tokens_instead_of_passwords() {
    let keychain = keychain(
        "tokens",
        r#"{"auths": {"a.io": {"auth": "eDp5", "identitytoken": "idt"}, "b.io": {"registrytoken": "rt"}}}"#,
    );
    assert_eq!(find(&keychain, "a.io/a").as_deref(), Some("identity idt"));
    assert_eq!(find(&keychain, "b.io/a").as_deref(), Some("registry rt"));
}

#[test]
fn a_broken_file_is_an_error_that_shows_no_secret() {
    for (name, json) in
        [("json", "{\"auths\": {\"a.io\": \"hunter2\"}}"), ("base64", r#"{"auths":{"a.io":{"auth":"hunter2!"}}}"#)]
    {
        let error = keychain(name, json).find(&"a.io/a".parse().unwrap()).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(&format!("{name}.json")), "{text}");
        assert!(!format!("{error}").contains("hunter2"), "{error}");
    }
    assert_eq!(find(&keychain("empty", " \n"), "a.io/a"), None, "podman leaves empty files behind");
    let big = format!("{{\"x\": \"{}\"}}", "a".repeat(usize::try_from(limits::CREDENTIALS_BYTES_MAX).unwrap()));
    assert!(keychain("big", &big).find(&"a.io/a".parse().unwrap()).is_err());
}

#[test]
fn a_file_that_cannot_be_read_is_passed_over() {
    // For root no file is forbidden, so a directory stands for one; the error is of the same kind.
    let readable = keychain("unreadable", r#"{"auths": {"a.io": {"auth": "eDp5"}}}"#);
    let mut files = readable.files.clone();
    files.insert(0, readable.1.clone());
    assert_eq!(find(&Keychain::with_files(files), "a.io/a").as_deref(), Some("x:y"));
    assert_eq!(find(&Keychain::with_files(vec![readable.1.clone()]), "a.io/a"), None);
}

#[test]
fn files_in_the_order_of_their_explicitness() {
    let env = |name: &str| match name {
        "HOME" => Some("/home/a".to_owned()),
        "REGISTRY_AUTH_FILE" => Some("/x/auth.json".to_owned()),
        "XDG_RUNTIME_DIR" => Some("/run/user/1".to_owned()),
        _ => None,
    };
    assert_eq!(
        Keychain::from_env(env).searched(),
        "/x/auth.json, /home/a/.docker/config.json, /run/user/1/containers/auth.json, /home/a/.config/containers/auth.json"
    );
}

#[test]
fn a_helper_is_asked_answers_and_is_ended_in_time() {
    let run = |script: &str, limit: Duration| {
        let command = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        converse(command.unwrap(), "r.io", limit).unwrap()
    };
    let minute = Duration::from_secs(60);
    assert_eq!(run("cat", minute), Some((true, b"r.io".to_vec())));
    assert_eq!(run("echo no; exit 1", minute), Some((false, b"no\n".to_vec())));
    assert_eq!(run("exec sleep 3600", Duration::from_millis(50)), None);
    assert_eq!(run("exec >&-; exec sleep 3600", Duration::from_millis(50)), None);
}

#[test]
fn a_helper_that_is_missing_stops_only_the_registry_that_needs_it() {
    let keychain = keychain(
        "missing-helper",
        r#"{"credsStore": "auroraboot-none", "credHelpers": {"a.io": "auroraboot-none", "e.io": "../evil"}}"#,
    );
    assert!(matches!(keychain.find(&"a.io/a".parse().unwrap()), Err(Error::Helper { .. })));
    assert!(matches!(keychain.find(&"e.io/a".parse().unwrap()), Err(Error::HelperFailed { .. })));
    assert_eq!(find(&keychain, "b.io/a"), None);
}

#[test]
fn what_helpers_answer() {
    let answer = |success, text: &str| parse_answer(success, text.as_bytes());
    let password = Login::Password { user: "u".into(), password: Secret::new("p") };
    assert_eq!(answer(true, r#"{"ServerURL": "a.io", "Username": "u", "Secret": "p"}"#), Ok(Some(password)));
    let identity = Login::Identity(Secret::new("t"));
    assert_eq!(answer(true, r#"{"Username": "<token>", "Secret": "t"}"#), Ok(Some(identity)));
    assert_eq!(answer(false, "credentials not found in native keychain\n"), Ok(None));
    assert_eq!(answer(false, "the key ring is locked"), Err("it reported an error"));
    assert_eq!(answer(true, "p"), Err("its answer is not valid"));
}
