//! Signals in the middle of anything: the end is prompt, and the next run starts clean.

use super::*;
use crate::registry::real::noise;
use auroraboot::limits;
use std::sync::mpsc;
use std::time::Duration;

/// How long the end may take after the signal; a busy machine is slow.
const PROMPTLY: Duration = Duration::from_secs(5);

const STOPPED: &str = "stopped before everything was ready; the next start goes on from here";

fn large_image() -> Image {
    image(&bootable_with(file("usr/noise", noise(12 << 20, 1))))
}

#[test]
fn a_registry_that_never_answers_does_not_hold_the_end_up() {
    let image = large_image();
    let layer = image.layers[0].digest().to_string();
    let config = image.blobs[1].digest().to_string();
    for (part, sent) in [
        ("/manifests/it".to_owned(), None),
        ("/manifests/it".to_owned(), Some(0)),
        (config, Some(10)),
        (layer.clone(), None),
        (layer.clone(), Some(0)),
        (layer, Some(1 << 20)),
    ] {
        let site = Site::new("silent");
        let (asked, asks) = mpsc::channel();
        let body = image.layers[0].bytes.clone();
        let wanted = part.clone();
        let registry = site.registry(&image, move |request, before| {
            let is_it = request.path.ends_with(&wanted) && before == 0;
            is_it.then(|| {
                asked.send(()).unwrap();
                match sent {
                    Some(sent) => Reply::new(200, body.clone()).stall(sent),
                    None => Reply { silent: true, ..Reply::default() },
                }
            })
        });
        let run = site.start(site.command(&registry.name(), MEDIA_ONLY));
        asks.recv_timeout(PATIENCE).unwrap();
        let told = Instant::now();
        run.signal("TERM");
        let outcome = run.outcome();
        assert!(told.elapsed() < PROMPTLY, "{part}: {:?}", told.elapsed());
        assert_eq!(outcome.error(), STOPPED, "{part}");
        site.build(&registry.name()).succeeded();
        assert!(site.leftovers().is_empty(), "{part}: {:?}", site.leftovers());
    }
}

#[test]
fn a_registry_that_swallows_everything_does_not_hold_the_end_up() {
    let site = Site::new("hole");
    let neighbour = ["neigh", "add", "10.77.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "permanent"];
    ip(&[&["-n", &site.lan.server][..], &neighbour].concat());
    let mut run = site.start(site.command("10.77.0.77:5000/it/img", MEDIA_ONLY));
    run.wait_for("Pull: Asking for");
    let told = Instant::now();
    run.signal("TERM");
    run.outcome();
    assert!(told.elapsed() < limits::STOP_PATIENCE + PROMPTLY, "{:?}", told.elapsed());

    let mut run = site.start(site.command("10.77.0.77:5000/it/img", MEDIA_ONLY));
    run.wait_for("Pull: Asking for");
    let told = Instant::now();
    run.signal("INT");
    run.wait_for("Ending");
    run.signal("INT");
    run.outcome();
    assert!(told.elapsed() < limits::STOP_PATIENCE, "the second time is final: {:?}", told.elapsed());
}

#[test]
fn whenever_it_is_ended_the_next_run_starts_clean() {
    let image = large_image();
    let site = Site::new("moments");
    let registry = site.good_registry(&image);
    let started = Instant::now();
    site.build(&registry.name()).succeeded();
    let whole = started.elapsed();
    const MOMENTS: u32 = 12;
    for moment in 0..MOMENTS {
        let signal = ["TERM", "KILL", "INT"][moment as usize % 3];
        std::fs::remove_dir_all(site.state()).unwrap();
        let run = site.start(site.command(&registry.name(), MEDIA_ONLY));
        std::thread::sleep(whole * moment / MOMENTS); // the moment is what is tested
        run.signal(signal);
        let told = Instant::now();
        let outcome = run.outcome();
        assert!(told.elapsed() < PROMPTLY, "{:?} {outcome:#?}", told.elapsed());
        match (signal, outcome.code) {
            // Before the program could ask for it, a signal ends it by itself.
            (_, None) | (_, Some(0)) => {}
            _ => assert_eq!(outcome.error(), STOPPED),
        }
        site.build(&registry.name()).succeeded();
        assert!(site.leftovers().is_empty(), "{signal} at {moment}: {:?}", site.leftovers());
        assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());
        site.verify_checksums();
    }
}

#[test]
fn serving_ends_with_success_and_frees_the_ports() {
    let site = Site::new("end");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    for signal in ["INT", "TERM"] {
        let run = site.serve(&registry.name(), &[]);
        let told = Instant::now();
        run.signal(signal);
        let outcome = run.outcome();
        assert!(told.elapsed() < PROMPTLY);
        assert!(outcome.succeeded().log.last().unwrap().ends_with(" Stopped"), "{outcome:#?}");
    }
    let run = site.serve(&registry.name(), &[]);
    run.signal("KILL");
    assert_eq!(run.outcome().code, None);
    site.serve(&registry.name(), &[]);
}
