//! What a log survives, and what it refuses.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Wal, WalOptions};

fn options(dir: &std::path::Path) -> WalOptions {
    WalOptions { dir: dir.to_owned(), owner: 7, segment_bytes: 300, sync_appends: false }
}

fn open(dir: &std::path::Path) -> std::io::Result<(Wal, Vec<Bytes>)> {
    let mut seen = Vec::new();
    let wal = Wal::open(options(dir), 0, &mut |version, payload| {
        assert_eq!(version, seen.len() as i64);
        seen.push(payload);
        Ok(())
    })?;
    Ok((wal, seen))
}

fn append(wal: &mut Wal, payload: &[u8]) -> i64 {
    let mut record = Wal::record();
    record.extend_from_slice(payload);
    wal.append(record).unwrap().0
}

fn filled(dir: &std::path::Path, count: u8) -> Wal {
    let (mut wal, _) = open(dir).unwrap();
    for number in 0..count {
        assert_eq!(append(&mut wal, &[number; 40]), i64::from(number));
    }
    wal
}

fn segments(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn records_come_back_after_reopening_and_by_version() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 30));
    let (wal, seen) = open(dir.path()).unwrap();
    assert_eq!(seen.len(), 30);
    assert!(segments(dir.path()).len() > 3);
    assert_eq!(wal.range(), (0, 30));
    let read = |from, bytes| wal.locate(from, bytes).iter().map(|at| at.read().unwrap()[0]).collect::<Vec<_>>();
    assert_eq!(read(27, usize::MAX), [27, 28, 29]);
    assert_eq!(read(3, 1), [3]);
    assert_eq!(read(30, usize::MAX), [0u8; 0]);
}

#[test]
fn dropped_segments_move_the_beginning_and_versions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = filled(dir.path(), 30);
    let held = wal.locate(0, 1);
    wal.drop_segments(20, |_, _| true).unwrap();
    let (begin, end) = wal.range();
    assert!(begin > 0 && begin <= 20 && end == 30, "{begin}");
    assert_eq!(held[0].read().unwrap()[0], 0);
    assert_eq!(wal.locate(0, 1)[0].version, begin);
    wal.roll().unwrap();
    wal.drop_segments(30, |closed, _| closed <= SystemTime::now()).unwrap();
    assert_eq!(wal.range(), (30, 30));
    drop(wal);
    let mut wal = Wal::open(options(dir.path()), 0, &mut |_, _| Ok(())).unwrap();
    assert_eq!(append(&mut wal, b"next"), 30);
}

#[test]
fn damage_in_the_middle_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 30));
    let paths = segments(dir.path());
    for path in [&paths[1], &paths[paths.len() - 1]] {
        let sound = fs::read(path).unwrap();
        let mut bytes = sound.clone();
        bytes[32 + 25] ^= 1;
        fs::write(path, &bytes).unwrap();
        let text = open(dir.path()).unwrap_err().to_string();
        assert!(text.contains("offset 32") && text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
        fs::write(path, &sound).unwrap();
    }
    fs::remove_file(&paths[1]).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("starts at version"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_cut_of_the_last_segment_loses_only_what_was_cut(cut in 0usize..400, garbage in 0usize..60) {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 23));
        let path = segments(dir.path()).pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        let kept = bytes.len() - cut.min(bytes.len());
        let mut torn = bytes[..kept].to_vec();
        torn.extend(std::iter::repeat_n(0xa5, if kept > 32 { garbage } else { 0 }));
        fs::write(&path, &torn).unwrap();
        let (mut wal, seen) = open(dir.path()).unwrap();
        let first: i64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        prop_assert_eq!(seen.len() as i64, first + (kept.max(32) as i64 - 32) / 60);
        let next = append(&mut wal, b"after");
        prop_assert_eq!(next, seen.len() as i64);
        drop(wal);
        prop_assert_eq!(open(dir.path()).unwrap().1.len(), seen.len() + 1);
    }
}
