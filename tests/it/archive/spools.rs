//! Archives that are taken into the cache: nothing twice, nothing half, nothing that is not wanted.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use auroraboot::limits;
use auroraboot::rootfs::LayerSource;
use auroraboot::source::Compression;

use super::sample::{Sample, compress};
use super::{Place, tar_of, tars};
use crate::media::SmallDisk;
use crate::rootfs::layers::{digest, tar};

/// Gives an archive out, and ends in an error, or stops who reads.
struct Breaking<'a> {
    bytes: &'a [u8],
    at_end: &'a dyn Fn() -> io::Result<usize>,
}

impl Read for Breaking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer)? {
            0 => (self.at_end)(),
            count => Ok(count),
        }
    }
}

#[test]
fn a_compressed_archive_is_unpacked_once() {
    let (place, sample) = (Place::new("once"), Sample::new());
    let path = place.write("x.tar.gz", &compress(&tar(&sample.skopeo("x:v1")), Compression::Gzip));
    let first = place.open("docker-archive:~/x.tar.gz").unwrap();
    let inodes = || -> Vec<u64> {
        let blobs = place.blobs();
        blobs.iter().map(|name| fs::metadata(place.path("state/blobs/sha256").join(name)).unwrap().ino()).collect()
    };
    let (before, modified) = (inodes(), fs::metadata(&path).unwrap().modified().unwrap());
    // What it holds cannot be read any more, and need not be.
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let again = place.open("docker-archive:~/x.tar.gz").unwrap();
    assert_eq!((again.manifest, inodes()), (first.manifest.clone(), before.clone()));
    // A copy of it is read again, but nothing is written that is there.
    fs::copy(&path, place.path("copy.tar.gz")).unwrap();
    let copy = place.open("docker-archive:~/copy.tar.gz").unwrap();
    assert_eq!((copy.manifest, inodes()), (first.manifest, before));
    // A layer that went is fetched again.
    fs::remove_file(place.cache().path(&first.diff_ids[0])).unwrap();
    assert!(tars(&place.open("docker-archive:~/x.tar.gz").unwrap()) == sample.tars);
}

#[test]
fn a_stream_that_breaks_off_leaves_nothing() {
    let (place, sample) = (Place::new("broken"), Sample::new());
    let archive = tar(&sample.legacy("x:v1"));
    place.spool(&mut &tar(&Sample::other("amd64", "before").skopeo("a:v1"))[..], None).unwrap();
    let before = place.blobs();
    let broken = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
    for at in [0, 1, 511, 512, 513, 200_000, archive.len() / 2, archive.len() - 1025] {
        let line = place.spool(&mut Breaking { bytes: &archive[..at], at_end: &broken }, None).unwrap_err();
        assert!(line.contains("connection reset"), "{at}: {line}");
        assert_eq!(place.blobs(), before, "at {at}");
        let cut = place.spool(&mut &archive[..at], None).unwrap_err();
        assert!(cut.contains("cut off") || cut.contains("ends in the middle"), "{at}: {cut}");
        assert_eq!(place.blobs(), before, "at {at}");
    }
    let stop = || {
        place.stop.stop();
        Ok(0)
    };
    let line = place.spool(&mut Breaking { bytes: &archive[..300_000], at_end: &stop }, None).unwrap_err();
    assert_eq!((line.as_str(), place.blobs()), ("stopped", before));
}

#[test]
fn remains_of_a_killed_run_go_and_do_no_harm() {
    let (place, sample) = (Place::new("remains"), Sample::new());
    let archive = tar(&sample.legacy("x:v1"));
    let cache = place.cache();
    for number in [0, 1, 7] {
        place.write(&format!("state/blobs/sha256/spool-{number}.part"), b"half of something");
    }
    // A document and a layer that a killed run was about to keep.
    fs::write(cache.part_path(&digest(&sample.config())), b"half").unwrap();
    let spooled = place.spool(&mut &archive[..], None).unwrap();
    assert!(tars(&spooled.image(&cache).unwrap()) == sample.tars);
    assert!(place.blobs().iter().all(|name| !name.ends_with(".part")), "{:?}", place.blobs());
}

/// Needs root for a disk of its own.
#[test]
fn a_full_disk_is_told_and_nothing_is_left_on_it() {
    let (place, sample) = (Place::new("full"), Sample::new());
    let _disk = SmallDisk::mount(&place.path("state"), 360);
    let archive = tar(&sample.legacy("x:v1"));
    let line = place.spool(&mut &archive[..], None).unwrap_err();
    assert!(line.contains("is full") && line.contains("spool-"), "{line}");
    assert_eq!(place.blobs(), [""; 0]);
    let small = Sample::other("amd64", "fits");
    assert!(
        tars(&place.spool(&mut &tar(&small.legacy("x:v1"))[..], None).unwrap().image(&place.cache()).unwrap())
            == small.tars
    );
}

#[test]
fn what_rots_in_the_cache_is_not_given_out() {
    let (place, sample) = (Place::new("rot"), Sample::new());
    let spooled = place.spool(&mut &tar(&sample.modern("x:v1"))[..], None).unwrap();
    let cache = place.cache();
    let layer = &spooled.manifest.layers[1];
    let mut bytes = fs::read(cache.path(&layer.digest)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(cache.path(&layer.digest), &bytes).unwrap();
    let image = spooled.image(&cache).unwrap();
    assert_eq!(tar_of(&image, 0).unwrap(), sample.tars[0]);
    assert!(tar_of(&image, 1).is_err());
    // What comes again from an archive that does not name it by its digest takes its place.
    let docker = place.spool(&mut &tar(&sample.legacy("x:v1"))[..], None).unwrap();
    let rotten = cache.path(&docker.diff_ids[1]);
    fs::write(&rotten, vec![0; sample.tars[1].len()]).unwrap();
    assert!(tar_of(&docker.image(&cache).unwrap(), 1).is_err());
    place.spool(&mut &tar(&sample.legacy("x:v1"))[..], None).unwrap();
    assert!(tars(&docker.image(&cache).unwrap()) == sample.tars);
    fs::write(cache.path(&layer.digest), &bytes[..middle]).unwrap();
    assert!(spooled.image(&cache).is_none(), "one of another size is not the layer");
}

#[test]
fn layers_compressed_inside_docker_archives_are_held_against_their_diff_ids() {
    let (place, sample) = (Place::new("inside"), Sample::new());
    let pack = |second: &[u8]| {
        let mut members = sample.skopeo("x:v1");
        members.retain(|member| member.kind == b'0');
        members[0].data = compress(&sample.tars[0], Compression::Gzip);
        members[1].data = compress(second, Compression::Zstd);
        tar(&members)
    };
    let good = pack(&sample.tars[1]);
    place.write("good.tar", &good);
    let image = place.open("docker-archive:~/good.tar").unwrap();
    assert!(tars(&image) == sample.tars);
    assert_eq!((0..3).map(|layer| image.digest(layer)).collect::<Vec<_>>(), image.diff_ids);
    let spooled = place.spool(&mut &good[..], None).unwrap();
    assert_eq!(spooled.manifest.layers[1].compression, Compression::Zstd);
    assert!(tars(&spooled.image(&place.cache()).unwrap()) == sample.tars);

    let bad = pack(&tar(&[crate::rootfs::layers::file("evil", "evil")]));
    place.write("bad.tar", &bad);
    let images = [place.open("docker-archive:~/bad.tar").unwrap(), {
        let spooled = place.spool(&mut &bad[..], None).unwrap();
        spooled.image(&place.cache()).unwrap()
    }];
    for image in images {
        assert_eq!(tar_of(&image, 0).unwrap(), sample.tars[0]);
        let line = tar_of(&image, 1).unwrap_err();
        assert!(line.contains("has the digest") && line.contains("layer 2"), "{line}");
    }
}

#[test]
fn many_small_members_do_not_fill_the_memory() {
    let place = Place::new("memory");
    let small = vec![b'x'; usize::try_from(limits::SPOOL_SMALL_BYTES_MAX).unwrap()];
    let count = limits::SPOOL_MEMORY_BYTES_MAX / limits::SPOOL_SMALL_BYTES_MAX + 1;
    let members: Vec<_> = (0..count).map(|n| crate::rootfs::layers::file(format!("{n}.tar"), &small)).collect();
    let line = place.spool(&mut &tar(&members)[..], None).unwrap_err();
    assert_eq!(line, "bytes of small files in the archive: more than the limit of 33554432");
}

#[test]
fn what_follows_the_end_is_bounded() {
    let (place, sample) = (Place::new("padding"), Sample::other("amd64", "x"));
    let mut archive = tar(&sample.legacy("x:v1"));
    let end = archive.len();
    // tar itself fills its last record of 10 KiB up.
    archive.resize(end + 10_240, 0);
    assert!(place.spool(&mut &archive[..], None).is_ok());
    archive.resize(end + usize::try_from(limits::ARCHIVE_PADDING_BYTES_MAX).unwrap() + (1 << 20), 0);
    let line = place.spool(&mut &archive[..], None).unwrap_err();
    assert!(line.ends_with("bytes behind the end of the archive: more than the limit of 16777216"), "{line}");
}

/// Needs root for a disk of its own, which has room for the image once.
#[test]
fn what_is_there_is_not_written_again() {
    let (place, sample) = (Place::new("room"), Sample::new());
    let _disk = SmallDisk::mount(&place.path("state"), 700);
    for archive in [sample.skopeo("x:v1"), sample.skopeo("x:v1")] {
        let spooled = place.spool(&mut &tar(&archive)[..], None).unwrap();
        assert!(tars(&spooled.image(&place.cache()).unwrap()) == sample.tars);
    }
}
