//! Which artifact it is: by name, by GitHub's API, or by neither and what there is instead.

use auroraboot::limits;
use auroraboot::source::Verified;

use super::*;

/// GitHub as it answers for a public release.
fn github(checksum: impl Fn(&[u8]) -> String + Send + Sync + 'static) -> Server {
    Server::start(move |request, _| {
        if request.path == iso_path() {
            return Some(file(request, &iso()));
        }
        (request.path == format!("{}.sha256", iso_path())).then(|| Reply::new(200, checksum(&iso())))
    })
}

#[test]
fn a_release_is_fetched_verified_and_not_fetched_again() {
    for checksum in [
        |bytes: &[u8]| checksum_of(bytes),
        |bytes: &[u8]| format!("{}  {NAME}.iso\n", hex(bytes)),
        |bytes: &[u8]| format!("{}  artifacts/{NAME}.iso\n", hex(bytes)),
        |bytes: &[u8]| hex(bytes),
    ] {
        let (server, host) = (github(checksum), Host::new("good"));
        let fetched = host.fetch_from(&server).unwrap();
        host.has(&fetched, &iso());
        assert_eq!((fetched.verified, fetched.reused), (Verified::Published, false));
        assert_eq!(server.paths(), [format!("{}.sha256", iso_path()), iso_path()]);
        let told = host.told.lock().unwrap().clone();
        let (first, last) = (told[0], told[told.len() - 1]);
        assert_eq!((first.here, first.total, first.ended), (0, Some(SIZE as u64), false));
        assert_eq!(
            (last.here, last.fetched, last.total, last.ended),
            (SIZE as u64, SIZE as u64, Some(SIZE as u64), true)
        );

        let again = host.fetch_from(&server).unwrap();
        host.has(&again, &iso());
        assert_eq!((again.verified, again.reused, &again.url), (Verified::Published, true, &fetched.url));
        assert_eq!(server.paths()[2..], [format!("{}.sha256", iso_path())]);
    }
}

#[test]
fn a_file_that_was_touched_is_fetched_again() {
    let (server, host) = (github(checksum_of), Host::new("touched"));
    host.fetch_from(&server).unwrap();
    let mut bytes = iso();
    bytes[7] ^= 1;
    std::fs::write(host.iso(), &bytes).unwrap();
    let fetched = host.fetch_from(&server).unwrap();
    assert!(!fetched.reused);
    host.has(&fetched, &iso());
}

/// As `cp -r` of the state directory does it.
#[test]
fn a_file_that_was_copied_is_known_by_its_sha256() {
    let without_checksum = || Server::start(|request, _| (request.path == iso_path()).then(|| file(request, &iso())));
    for (server, name) in [(github(checksum_of), "copied"), (without_checksum(), "copied-unpublished")] {
        let host = Host::new(name);
        assert!(!host.fetch_from(&server).unwrap().reused);
        let noted = std::fs::read(host.stamp()).unwrap();
        std::fs::remove_file(host.iso()).unwrap();
        std::fs::write(host.iso(), iso()).unwrap();
        let again = host.fetch_from(&server).unwrap();
        assert!(again.reused);
        host.has(&again, &iso());
        assert!(std::fs::read(host.stamp()).unwrap() != noted, "so that the next run need not read it all");
    }
}

#[test]
fn other_names_of_the_same_artifact_are_tried() {
    // In 2023 the name began with kairos for core images too; today's tool asks for core-rockylinux of such a release.
    let path = "/kairos-io/kairos/releases/download/v1.5.0/kairos-rockylinux-v1.5.0.iso";
    let server = Server::start(move |request, _| match request.path.strip_prefix(path)? {
        "" => Some(file(request, &iso())),
        ".sha256" => Some(Reply::new(200, format!("{} x.iso", hex(&iso())))),
        _ => None,
    });
    let (host, url) = (Host::new("2023"), server.url(""));
    let wanted = ReleaseQuery {
        repository: "kairos-io/kairos",
        release_version: "v1.5.0",
        artifact_version: "v1.5.0",
        flavor: "rockylinux",
        github_url: Some(&url),
        ..query()
    };
    let fetched = host.fetch(&wanted).unwrap();
    host.has(&fetched, &iso());
    let before = server.paths().len();
    assert!(host.fetch(&wanted).unwrap().reused);
    assert_eq!(server.paths()[before..], [format!("{path}.sha256")], "the name that was found is asked for first");
}

#[test]
fn without_a_checksum_the_server_is_asked_whether_the_file_changed() {
    let version = Arc::new(Mutex::new(1));
    let current = Arc::clone(&version);
    let server = Server::start(move |request, _| {
        (request.path == iso_path()).then(|| file(request, &noise(SIZE, *current.lock().unwrap())))
    });
    let host = Host::new("no-checksum");
    let fetched = host.fetch_from(&server).unwrap();
    assert_eq!((fetched.verified, fetched.reused), (Verified::Unpublished, false));
    host.has(&fetched, &noise(SIZE, 1));
    let again = host.fetch_from(&server).unwrap();
    assert_eq!((again.verified, again.reused), (Verified::Unpublished, true));
    *version.lock().unwrap() = 2;
    let newer = host.fetch_from(&server).unwrap();
    assert!(!newer.reused);
    host.has(&newer, &noise(SIZE, 2));
}

#[test]
fn where_no_checksum_is_published_github_has_one() {
    let server = |bytes: Vec<u8>| {
        Server::start(move |request, _| {
            if request.path == format!("{API}releases/tags/v1.5.1") {
                let assets = format!(r#"[{{"id": 7, "name": "{NAME}.iso", "digest": "sha256:{}"}}]"#, hex(&iso()));
                return Some(json(200, format!(r#"{{"id": 1, "assets": {assets}}}"#)));
            }
            (request.path == iso_path()).then(|| file(request, &bytes))
        })
    };
    let host = Host::new("api-digest");
    assert_eq!(host.fetch_from(&server(iso())).unwrap().verified, Verified::Published);
    let altered = Host::new("api-digest-altered").fetch_from(&server(noise(SIZE, 4))).unwrap_err();
    assert!(altered.contains(&format!("but sha256:{} is published", hex(&iso()))), "{altered}");
}

/// A private repository: downloads are for nobody, the API wants the token and sends on to a store of objects.
fn private(store: &Server) -> Server {
    let objects = store.url("/objects/");
    Server::start(move |request, _| {
        let path = request.path.strip_prefix(API)?;
        if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return Some(json(404, r#"{"message": "Not Found"}"#));
        }
        match path {
            "releases/tags/v1.5.1" => {
                let assets = format!(
                    r#"[{{"id": 6, "name": "{NAME}.iso", "state": "starter"}}, {{"id": 7, "name": "{NAME}.iso", "state": "uploaded"}},
                        {{"id": 8, "name": "{NAME}.iso.sha256"}}]"#
                );
                Some(json(200, format!(r#"{{"id": 1, "assets": {assets}}}"#)))
            }
            "releases/assets/7" | "releases/assets/8"
                if request.header("accept") == Some("application/octet-stream") =>
            {
                let location = format!("{objects}{}?sig=hunter2", path.rsplit('/').next().unwrap());
                Some(Reply::new(302, "").header("location", location))
            }
            _ => None,
        }
    })
}

#[test]
fn a_private_artifact_comes_through_the_api_and_the_token_stays_there() {
    let store = Server::start(|request, before| match request.path.as_str() {
        "/objects/7?sig=hunter2" if before == 0 => Some(file(request, &iso()).cut(SIZE / 2)),
        "/objects/7?sig=hunter2" => Some(file(request, &iso())),
        "/objects/8?sig=hunter2" => Some(Reply::new(200, checksum_of(&iso()))),
        _ => None,
    });
    let server = private(&store);
    let host = Host::with_token("private");
    let fetched = host.fetch_from(&server).unwrap();
    host.has(&fetched, &iso());
    assert_eq!(fetched.verified, Verified::Published);
    assert_eq!(store.starts("/objects/7?sig=hunter2"), [None, Some(SIZE / 2)], "also resumed");
    let at_the_store = store.requests();
    assert!(at_the_store.iter().all(|request| request.header("authorization").is_none()), "{at_the_store:?}");
    let outside_of_the_api: Vec<_> =
        server.requests().into_iter().filter(|request| !request.path.starts_with(API)).collect();
    assert!(outside_of_the_api.iter().all(|request| request.header("authorization").is_none()));
    assert!(host.fetch_from(&server).unwrap().reused);
    let stamp = std::fs::read_to_string(host.stamp()).unwrap();
    assert!(!stamp.contains(TOKEN) && !stamp.contains("hunter2"), "{stamp}");
}

#[test]
fn a_repository_that_cannot_be_seen_is_private_or_not_there() {
    let server = private(&Server::start(|_, _| None));
    let error = Host::new("no-token").fetch_from(&server).unwrap_err();
    assert!(
        error.contains("no repository kairos-io/provider-kairos at 127.0.0.1:")
            && error.ends_with("or it is private: set AURORABOOT_GITHUB_TOKEN"),
        "{error}"
    );
    let nothing =
        Server::start(|request, _| request.path.starts_with(API).then(|| json(404, r#"{"message": "Not Found"}"#)));
    let error = Host::with_token("wrong-token").fetch_from(&nothing).unwrap_err();
    assert!(error.ends_with("or the token of AURORABOOT_GITHUB_TOKEN may not see it"), "{error}");
}

#[test]
fn an_artifact_that_does_not_exist_is_answered_with_those_that_do() {
    let server = |assets: Vec<String>| {
        Server::start(move |request, _| {
            let (path, page) = request.path.split_once("?per_page=100&page=").unwrap_or((&request.path, "1"));
            let page: usize = page.parse().unwrap();
            let list = |from: usize, count: usize| {
                let entries = assets.iter().enumerate().skip(from).take(count);
                let entries = entries.map(|(id, name)| format!(r#"{{"id": {id}, "name": "{name}"}}"#));
                format!("[{}]", entries.collect::<Vec<_>>().join(","))
            };
            match path.strip_prefix(API)? {
                "releases/tags/v1.5.1" => Some(json(200, format!(r#"{{"id": 42, "assets": {}}}"#, list(0, 30)))),
                "releases/42/assets" => Some(json(200, list((page - 1) * 100, 100))),
                _ => None,
            }
        })
    };
    let few = ["kairos-opensuse-v1.5.1-k3sv1.21.14+k3s1", "kairos-debian-v1.5.1", "x"];
    let few: Vec<String> = few.iter().flat_map(|name| [format!("{name}.iso"), format!("{name}.iso.sha256")]).collect();
    let error = Host::new("absent").fetch_from(&server(few)).unwrap_err();
    let wanted =
        format!("release v1.5.1 of kairos-io/provider-kairos has no {NAME}.iso or kairos-standard-opensuse-leap");
    assert!(error.starts_with(&wanted), "{error}");
    let there = "its ISOs are kairos-opensuse-v1.5.1-k3sv1.21.14+k3s1.iso, kairos-debian-v1.5.1.iso, x.iso";
    assert!(error.ends_with(there), "{error}");

    let error = Host::new("no-isos").fetch_from(&server(vec!["source.zip".to_owned()])).unwrap_err();
    assert!(error.ends_with("none of its 1 files is an ISO"), "{error}");
    let error = Host::new("no-files").fetch_from(&server(Vec::new())).unwrap_err();
    assert!(error.ends_with("it has no files at all"), "{error}");

    // More than any release may have: read to the bound, and no further.
    let pages_max = limits::GITHUB_PAGES_MAX as usize;
    let many = server((0..100 * (pages_max + 2)).map(|n| format!("other-{n}.iso")).collect());
    let error = Host::new("many").fetch_from(&many).unwrap_err();
    let rest = 100 * pages_max - limits::NAMES_LISTED_MAX;
    assert!(error.ends_with(&format!(" and {rest} more")), "{error}");
    let pages = many.paths().iter().filter(|path| path.contains("/releases/42/assets?")).count();
    assert_eq!(pages, pages_max);
}

#[test]
fn a_new_release_without_its_flavor_release_says_so() {
    let server = Server::start(|request, _| {
        let assets = r#"[{"id": 1, "name": "kairos-opensuse-leap-15.6-core-amd64-generic-v3.1.0.iso"}]"#;
        let path = format!("{API}releases/tags/v3.1.0");
        (request.path == path).then(|| json(200, format!(r#"{{"id": 1, "assets": {assets}}}"#)))
    });
    let url = server.url("");
    let wanted =
        ReleaseQuery { release_version: "v3.1.0", artifact_version: "v3.1.0", github_url: Some(&url), ..query() };
    let error = Host::new("flavor-release").fetch(&wanted).unwrap_err();
    let there = "its ISOs are kairos-opensuse-leap-15.6-core-amd64-generic-v3.1.0.iso; flavor_release is not set";
    assert!(error.ends_with(there), "{error}");
}

#[test]
fn a_release_that_does_not_exist_is_answered_with_those_that_do() {
    let server = Server::start(|request, _| match request.path.strip_prefix(API)? {
        "tags?per_page=100&page=1" => {
            Some(json(200, r#"[{"name": "v2.0.0"}, {"name": "v1.5.0"}, {"name": "v1.5.2"}]"#))
        }
        _ => Some(json(404, r#"{"message": "Not Found"}"#)),
    });
    let error = Host::new("no-release").fetch_from(&server).unwrap_err();
    assert_eq!(error, "kairos-io/provider-kairos has no release v1.5.1; its tags are v1.5.0, v1.5.2, v2.0.0");
}

#[test]
fn a_mirror_needs_no_api() {
    let error = Host::new("mirror").fetch_from(&Server::start(|_, _| None)).unwrap_err();
    assert!(
        error.contains(&format!("has no {NAME}.iso or "))
            && error.contains("cannot be listed: 127.0.0.1:")
            && error.ends_with(" has no GitHub API"),
        "{error}"
    );
}

#[test]
fn a_login_page_is_not_an_iso() {
    let page = |_: &Request, _| {
        Some(Reply::new(200, "<html>Sign in</html>").header("content-type", "text/html; charset=utf-8"))
    };
    let host = Host::new("page");
    let error = host.fetch_from(&Server::start(page)).unwrap_err();
    assert!(error.contains("cannot be listed"), "{error}");
    let error = host.fetch_iso(&Server::start(page).url("/x.iso")).unwrap_err();
    assert!(error.contains("/x.iso is a web page and not an ISO"), "{error}");
    assert!(!host.iso().exists());
}

#[test]
fn a_token_that_is_refused_and_limits_are_told() {
    let answer = |status: u16, headers: &'static [(&str, &str)]| {
        Server::start(move |request, _| {
            let reply = json(status, r#"{"message": "It is \u001b[31m so."}"#);
            let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(name, *value));
            request.path.starts_with(API).then_some(reply)
        })
    };
    let limited: &[(&str, &str)] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999999999")];
    for (token, status, headers, words) in [
        (true, 401, &[][..], "refuses the token of AURORABOOT_GITHUB_TOKEN: it is wrong or has expired"),
        (false, 401, &[], "refuses to tell (401): It is \u{fffd}[31m so."),
        (true, 403, &[], "refuses to tell (403)"),
        (false, 403, limited, "min); set AURORABOOT_GITHUB_TOKEN to a token of GitHub, which may ask more often"),
        (true, 429, limited, " min); try again then"),
        (true, 403, &[("retry-after", "90")], "answers no more requests for now (again in 2 min)"),
    ] {
        let server = answer(status, headers);
        let host = if token { Host::with_token("limits") } else { Host::new("limits") };
        let error = host.fetch_from(&server).unwrap_err();
        assert!(error.contains(words), "{error}");
        let asked = server.paths().iter().filter(|path| path.starts_with(API)).count();
        assert_eq!(asked, 1, "no good asking again: {error}");
    }
}

#[test]
fn an_endless_api_answer_is_not_read_to_its_end() {
    let length = usize::try_from(limits::GITHUB_ANSWER_BYTES_MAX).unwrap() + 1;
    let server = Server::start(move |request, _| request.path.starts_with(API).then(|| json(200, " ".repeat(length))));
    let error = Host::new("endless").fetch_from(&server).unwrap_err();
    assert!(error.contains(&format!("is larger than {} bytes", limits::GITHUB_ANSWER_BYTES_MAX)), "{error}");
}

#[test]
fn through_a_proxy_and_without_a_name_server() {
    let server = github(checksum_of);
    let (address, heads) = crate::registry::proxies::proxy(server.0.port);
    let mut host = Host::new("proxy");
    host.settings.proxies.http = Some(address);
    let fetched = host.fetch(&ReleaseQuery { github_url: Some("http://github.invalid"), ..query() }).unwrap();
    host.has(&fetched, &iso());
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT github.invalid:80 ")), "{heads:?}");
}

#[test]
fn a_token_does_not_travel_in_plain_text() {
    let server = Server::start(|_, _| None);
    let (address, _) = crate::registry::proxies::proxy(server.0.port);
    let mut host = Host::with_token("plain");
    host.settings.proxies.http = Some(address);
    host.fetch(&ReleaseQuery { github_url: Some("http://github.invalid"), ..query() }).unwrap_err();
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.path.starts_with(API)), "{requests:?}");
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");
}

#[test]
fn when_the_server_is_down_the_earlier_download_is_used() {
    let (server, mut host) = (github(checksum_of), Host::new("down"));
    // The name leads to the server through the proxy, as long as there is one.
    let (address, _) = crate::registry::proxies::proxy(server.0.port);
    host.settings.proxies.http = Some(address);
    let wanted = ReleaseQuery { github_url: Some("http://github.invalid"), ..query() };
    host.fetch(&wanted).unwrap();
    host.settings.proxies.http = None;
    let earlier = host.fetch(&wanted).unwrap();
    assert_eq!((earlier.reused, earlier.verified), (true, Verified::Published));
    host.has(&earlier, &iso());
    // Another release is another thing, and so is a file that somebody changed.
    let other = ReleaseQuery { flavor: "debian", ..wanted };
    assert!(host.fetch(&other).unwrap_err().contains("github.invalid does not resolve"));
    std::fs::write(host.iso(), "x").unwrap();
    assert!(host.fetch(&wanted).unwrap_err().contains("github.invalid does not resolve"));
}
