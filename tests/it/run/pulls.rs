//! From the name of an image to its files, once and again.

use super::*;
use crate::registry::real::{Guard, RealRegistry};

#[test]
fn an_image_is_pulled_and_built_once_and_then_needs_no_registry() {
    let site = Site::new("pull");
    let first = image(&bootable());
    let second = image(&bootable_with(file("etc/motd", "another image")));
    let mut registry = within(&site.lan.server, || {
        let registry = RealRegistry::start("run-registry", Guard::default());
        registry.push(&first.layout(&site.dir), "it/img:1");
        registry.push(&second.layout(&site.dir), "it/img:2");
        registry
    });
    let built = site.build(&registry.name("it/img:1"));
    let printed = built.succeeded().out.trim_end();
    assert!(printed.ends_with(site.iso("kairos.iso").to_str().unwrap()) && printed.lines().count() == 1, "{built:#?}");
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());
    site.verify_checksums();
    assert!(!built.reused() && built.log.iter().all(|line| has_stamp(line)), "{built:#?}");
    assert!(site.build(&registry.name("it/img:1")).reused());
    assert!(!site.build(&registry.name("it/img:2")).reused(), "another image is another ISO");

    registry.stop();
    let by_digest = registry.name(&format!("it/img@{}", second.top().digest()));
    let again = site.build(&by_digest);
    assert!(again.reused() && !again.said("Download"), "{again:#?}");
    assert!(site.leftovers().is_empty());
}

#[test]
fn what_is_cached_is_built_again_without_a_download() {
    let site = Site::new("cached");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    site.build(&registry.name()).succeeded();
    let requests = registry.requests().len();
    std::fs::write(site.iso("kairos.iso"), "somebody touched it").unwrap();
    let again = site.build(&pinned(&registry, &image));
    assert!(!again.reused());
    assert_eq!(registry.requests().len(), requests, "{again:#?}");
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());
}

#[test]
fn without_its_registry_a_tag_is_what_it_was_in_an_earlier_run() {
    let site = Site::new("offline");
    let image = image(&bootable());
    let mut registry = within(&site.lan.server, || {
        let registry = RealRegistry::start("run-offline", Guard::default());
        registry.push(&image.layout(&site.dir), "it/img:1");
        registry
    });
    let name = registry.name("it/img:1");
    site.build(&name).succeeded();
    let missing = site.build(&registry.name("it/img:2"));
    assert!(missing.error().contains("is not in its registry"), "{missing:#?}");

    registry.stop();
    let mut run = site.serve(&name, &[]);
    let warned = run.wait_for("the registry cannot be asked");
    let words = format!(
        "refuses the connection; is a server running on that port?): using {} that {name} was on 2",
        image.top().digest()
    );
    assert!(warned.contains("Warning: ") && warned.contains(&words), "{warned}");
    run.signal("INT");
    run.wait_for("Stopped");
    drop(run);

    std::fs::remove_file(site.state().join("stamps/iso.json")).unwrap();
    assert!(!site.build(&name).succeeded().reused(), "made again of the cached layers");
    std::fs::remove_dir_all(site.state().join("blobs/tags")).unwrap();
    assert!(site.build(&name).error().contains("refuses the connection"), "nothing is remembered");
}
