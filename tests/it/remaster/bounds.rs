//! Hostile images: every bound is reached, no mutation makes the reader or the remaster panic or run away.

use std::time::{Duration, Instant};

use auroraboot::iso::gpt::{Gpt, Guid, Partition, TYPE_BASIC_DATA, TYPE_ESP};
use auroraboot::iso::read::{Error, Image};
use auroraboot::iso::remaster::{self, Plan};
use auroraboot::limits;
use auroraboot::storage::Storage;

use super::judge::{read_all, scratch};
use super::sources::{self, Memory, noise, own};
use super::{additions, files, patch};

const BLOCK: usize = 2048;

fn put(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn open(image: &[u8]) -> Result<(), Error> {
    let storage = Memory::new(image.to_vec());
    Image::open(&storage, storage.len()).map(drop)
}

fn list(image: &[u8]) -> Error {
    let storage = Memory::new(image.to_vec());
    Image::open(&storage, storage.len()).unwrap().list("/").unwrap_err()
}

fn plan(image: &[u8]) -> Result<Plan, remaster::Error> {
    let storage = Memory::new(image.to_vec());
    Plan::new(&storage, storage.len(), &additions(&files()))
}

#[test]
fn what_is_no_image_or_half_of_one_is_said() {
    let image = own();
    for none in [&[][..], &noise(1 << 20, 5), &image[..16 * BLOCK], &image[..17 * BLOCK - 1]] {
        assert!(matches!(open(none), Err(Error::NotAnIso)));
    }
    let half = open(&image[..image.len() / 2]).unwrap_err();
    assert!(matches!(half, Error::Truncated { .. }), "{half}");
    assert!(half.to_string().contains(&(image.len() / 2).to_string()), "{half}");
    assert!(matches!(open(&image[..64 * BLOCK]), Err(Error::Truncated { .. })));
}

#[test]
fn descriptors_without_end_are_refused() {
    let mut image = own();
    let end = 16 + limits::ISO_DESCRIPTORS_MAX as usize;
    image[17 * BLOCK..end * BLOCK].fill(0);
    for block in 17..end {
        image[block * BLOCK..block * BLOCK + 7].copy_from_slice(b"\x03CD001\x01");
    }
    assert!(matches!(open(&image), Err(Error::Descriptors { .. })));
}

#[test]
fn an_oversized_directory_is_refused() {
    let mut image = own();
    put(&mut image, 16 * BLOCK + 166, limits::ISO_DIRECTORY_BYTES_MAX as u32 + 1);
    assert!(matches!(open(&image), Err(Error::DirectorySize { .. })));
}

#[test]
fn endless_continuations_are_refused() {
    let image = own();
    let ce = image.windows(4).position(|bytes| bytes == b"CE\x1c\x01").expect("a long name");
    let mut long = image.clone();
    put(&mut long, ce + 20, limits::ISO_CONTINUATION_BYTES_MAX + 1);
    assert!(matches!(list(&long), Error::Continuation { .. }));
    // The area is an entry that leads to the area.
    let at = |field: usize| u32::from_le_bytes(image[ce + field..ce + field + 4].try_into().unwrap()) as usize;
    let area = at(4) * BLOCK + at(12);
    let mut circle = image.clone();
    circle.copy_within(ce..ce + 28, area);
    let begun = Instant::now();
    let error = list(&circle);
    assert!(matches!(error, Error::TooMuch), "{error}");
    assert!(error.to_string().contains(&limits::ISO_LOOKUP_BYTES_MAX.to_string()));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_boot_catalog_is_one_block() {
    let mut image = own();
    let catalog = u32::from_le_bytes(image[17 * BLOCK + 71..17 * BLOCK + 75].try_into().unwrap()) as usize * BLOCK;
    image[catalog + 64..catalog + 68].copy_from_slice(&[0x91, 0xef, 0xff, 0xff]);
    let storage = Memory::new(image);
    let images = Image::open(&storage, storage.len()).unwrap().boot_images().len();
    assert_eq!(images, limits::ISO_BOOT_CATALOG_BYTES_MAX as usize / 32 - 2);
}

#[test]
fn a_boot_catalog_within_a_partition_that_moves_is_kept() {
    let mut image = own();
    let catalog = u32::from_le_bytes(image[17 * BLOCK + 71..17 * BLOCK + 75].try_into().unwrap()) as usize * BLOCK;
    let esp = Gpt::read(&Memory::new(image.clone())).unwrap().unwrap().partitions[1];
    let block = (esp.last_lba + 1) as usize / 4 - 1;
    image.copy_within(catalog..catalog + BLOCK, block * BLOCK);
    put(&mut image, 17 * BLOCK + 71, block as u32);
    let patched = Memory::new(patch(&image, &files()));
    let images = Image::open(&patched, patched.len()).unwrap().boot_images().to_vec();
    let moved = Gpt::read(&patched).unwrap().unwrap().partitions[1].first_lba;
    assert!(moved > esp.first_lba);
    assert_eq!(images.iter().map(|image| u64::from(image.location) * 4).skip(1).collect::<Vec<_>>(), [moved]);
}

#[test]
fn an_oversized_path_table_is_refused() {
    let mut image = own();
    put(&mut image, 16 * BLOCK + 132, limits::ISO_PATH_TABLE_BYTES_MAX + 1);
    assert!(matches!(plan(&image), Err(remaster::Error::TooMany("directories"))));
}

#[test]
fn too_many_partitions_behind_the_volume_are_refused() {
    let image = own();
    let storage = Memory::new(image);
    let mut gpt = Gpt::read(&storage).unwrap().unwrap();
    let first = gpt.partitions[1].first_lba;
    for index in 0..limits::ISO_TAIL_PARTITIONS_MAX as u64 {
        gpt.partitions.push(Partition::new(TYPE_ESP, Guid([index as u8; 16]), first + 4 * index, 4, "more"));
    }
    gpt.encode().unwrap().iter().for_each(|(offset, bytes)| storage.write_all_at(bytes, *offset).unwrap());
    assert!(matches!(plan(&storage.bytes()), Err(remaster::Error::TooMany("partitions"))));
}

#[test]
fn a_partition_whose_end_makes_no_sense_is_no_reason_to_panic() {
    let storage = Memory::new(own());
    let mut gpt = Gpt::read(&storage).unwrap().unwrap();
    let esp = gpt.partitions[1].first_lba;
    for (kind, name, last_lba, is_fine) in [
        (TYPE_ESP, "reversed", 7, true),
        (TYPE_ESP, "endless", u64::MAX, false),
        (TYPE_BASIC_DATA, "Gap9", 7, true),
        (TYPE_BASIC_DATA, "Gap9", u64::MAX, true),
    ] {
        gpt.partitions.truncate(2);
        let partition = Partition::new(kind, Guid([9; 16]), esp + 4, 1, name);
        gpt.partitions.push(Partition { last_lba, ..partition });
        gpt.encode().unwrap().iter().for_each(|(offset, bytes)| storage.write_all_at(bytes, *offset).unwrap());
        let planned = plan(&storage.bytes());
        assert_eq!(planned.is_ok(), is_fine, "{name} to {last_lba}: {planned:?}");
    }
}

#[test]
fn a_list_of_checksums_that_is_too_long_is_left_alone() {
    let line = b"0123456789abcdef0123456789abcdef  ./config.yaml\n".to_vec();
    let mut long = line.repeat(limits::ISO_CHECKSUM_LIST_BYTES_MAX as usize / line.len() + 1);
    let with = patch(&own(), &vec![("md5sum.txt".into(), long.clone())]);
    assert_eq!(read_all(&patch(&with, &files()))["/md5sum.txt"], long);
    long.truncate(10 * line.len());
    let with = patch(&own(), &vec![("md5sum.txt".into(), long)]);
    assert_eq!(read_all(&patch(&with, &files()))["/md5sum.txt"], b"");
}

/// Everything a caller does with an image, whatever comes of it.
fn exercise(storage: &Memory) {
    if let Ok(image) = Image::open(storage, storage.len()) {
        for path in ["/boot/kernel", "/config.yaml", "/1/2/3/4/5/6/7/8/9/10/f", "/link"] {
            let _ = image.find(path);
        }
        let _ = image.list("/");
    }
    let mut files = files();
    files.push(("1/2/3/4/5/6/7/8/9/new".into(), Vec::new()));
    if let Ok(plan) = Plan::new(storage, storage.len(), &additions(&files)) {
        assert!(plan.keep() <= storage.len() && plan.keep() <= plan.size());
    }
}

#[test]
fn mutations_are_survived() {
    let dir = scratch("mutations");
    let appended = sources::appended(dir.path());
    for (seed, source) in [own(), sources::genisoimage(dir.path(), "-R -J"), appended].into_iter().enumerate() {
        // Descriptors, partition tables, directories and path tables: not the content of files.
        let metadata = (0..80 * BLOCK).filter(|&at| source[at] != 0).collect::<Vec<_>>();
        let storage = Memory::new(source.clone());
        for round in noise(8 * MUTATIONS, 77 + seed as u64).chunks_exact(8) {
            let mut places = Vec::new();
            for mutation in round.chunks_exact(4) {
                let at = metadata[(usize::from(u16::from_le_bytes([mutation[0], mutation[1]])) * metadata.len()) >> 16];
                let byte = if mutation[3] & 3 == 0 { 0xff } else { mutation[2] };
                storage.write_all_at(&[byte], at as u64).unwrap();
                places.push(at);
            }
            let begun = Instant::now();
            exercise(&storage);
            assert!(begun.elapsed() < Duration::from_secs(20), "{round:?}");
            places.iter().for_each(|&at| storage.write_all_at(&source[at..=at], at as u64).unwrap());
        }
    }
}

/// Two bytes each, for every image.
const MUTATIONS: usize = 1500;
