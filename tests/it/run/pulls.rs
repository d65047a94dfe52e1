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
    let netboot = site.state().join("netboot");
    for (name, line) in ["kernel", "initrd", "rootfs.squashfs"].iter().zip(built.succeeded().out.lines()) {
        assert!(line.ends_with(netboot.join(name).to_str().unwrap()), "{built:#?}");
    }
    assert_eq!(std::fs::read_to_string(netboot.join("kernel")).unwrap(), kernel());
    assert!(!built.reused() && built.log.iter().all(|line| has_stamp(line)), "{built:#?}");
    assert!(site.build(&registry.name("it/img:1")).reused());
    assert!(!site.build(&registry.name("it/img:2")).reused(), "another image is another boot set");

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
    std::fs::write(site.state().join("netboot/kernel"), "somebody touched it").unwrap();
    let again = site.build(&pinned(&registry, &image));
    assert!(!again.reused());
    assert_eq!(registry.requests().len(), requests, "{again:#?}");
    assert_eq!(std::fs::read_to_string(site.state().join("netboot/kernel")).unwrap(), kernel());
}
