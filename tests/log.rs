//! The commit log over the simulated disk: what survives, what is refused, what is never shown.

use std::sync::Arc;

use bytes::Bytes;
use likewise::adapters::os_files::OsFiles;
use likewise::adapters::power::{CutPoint, Moment};
use likewise::adapters::simulated_disk::SimulatedDisk;
use likewise::adapters::system::{OsRandomness, SeededRandomness};
use likewise::adapters::threads::ThreadWorkers;
use likewise::ids::{ClusterId, Region};
use likewise::log::{
    AppendError, Appended, LogEnded, LogIdentity, LogOptions, LogSeams, LogWriter, OpenError,
    OpenedLog, Position, ReadError, Record, RecordKind, framed_bytes, open,
};
use likewise::seams::{Randomness, Workers};
use proptest::prelude::*;

const KIND: RecordKind = RecordKind(7);

fn options() -> LogOptions {
    LogOptions {
        folder: "log".to_owned(),
        segment_bytes: 16 << 10,
        group_bytes_max: 8 << 10,
        context_bytes_max: 256,
        recent_bytes: 4 << 10,
    }
}

fn identity() -> LogIdentity {
    LogIdentity {
        cluster: ClusterId::new("test").expect("valid"),
        region: Region::new("eu-west").expect("valid"),
    }
}

/// A disk with a log, and what was replayed at its last opening.
struct Bench {
    disk: SimulatedDisk,
    seed: u64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed);
        Self { disk, seed }
    }

    async fn open_from(
        &mut self,
        replay_from: Option<Position>,
        must_reach: Position,
    ) -> Result<(OpenedLog, Vec<Record>), OpenError> {
        self.seed += 1;
        let seams = LogSeams {
            files: self.disk.files(),
            randomness: Arc::new(SeededRandomness::new(self.seed)),
        };
        let mut seen = Vec::new();
        let visit = |record: Record| {
            seen.push(record);
            Ok(())
        };
        let log = open(seams, options(), identity(), replay_from, must_reach, visit).await?;
        Ok((log, seen))
    }

    async fn open(&mut self) -> Result<(OpenedLog, Vec<Record>), OpenError> {
        self.open_from(None, Position::START).await
    }

    /// Opens, with the preparer running; what was replayed is the payloads.
    async fn running(&mut self) -> (Running, Vec<Bytes>) {
        let (log, seen) = self.open().await.expect("the log opens");
        (Running::new(log), payloads(&seen))
    }

    fn segment_paths(&self) -> Vec<String> {
        self.disk.paths()
    }
}

struct Running {
    writer: LogWriter,
    reader: likewise::log::LogReader,
    trimmer: likewise::log::LogTrimmer,
    report: likewise::log::LogReport,
}

impl Running {
    fn new(log: OpenedLog) -> Self {
        tokio::spawn(log.preparer.run());
        Self {
            writer: log.writer,
            reader: log.reader,
            trimmer: log.trimmer,
            report: log.report,
        }
    }

    async fn append(&mut self, payloads: &[Bytes]) -> Result<Appended, AppendError> {
        let records = payloads.iter().map(|payload| (KIND, vec![payload.clone()]));
        let context = format!("before {}", self.writer.end().0);
        let records = records.collect();
        self.writer.append(records, || context.into()).await
    }

    /// Appends as soon as there is room.
    async fn append_one(&mut self, payload: &Bytes) -> Appended {
        let room = self.writer.room();
        let bytes = framed_bytes(payload.len()) as u64;
        room.wait_for(bytes).await.expect("the log lives");
        let payload = std::slice::from_ref(payload);
        self.append(payload).await.expect("appended")
    }

    /// Fills with records of this size until so many segments were begun.
    async fn fill(&mut self, bytes: usize, segments: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        while self.reader.segments().len() < segments {
            let payload = payload(all.len() as u64, bytes);
            self.append_one(&payload).await;
            all.push(payload);
        }
        all
    }
}

fn payload(seed: u64, bytes: usize) -> Bytes {
    let source = SeededRandomness::new(seed);
    (0..bytes).map(|_| source.below(255) as u8 + 1).collect()
}

fn payloads(records: &[Record]) -> Vec<Bytes> {
    records
        .iter()
        .map(|record| record.payload.clone())
        .collect()
}

async fn read_all(reader: &likewise::log::LogReader, bytes_max: usize) -> Vec<Bytes> {
    let mut all = Vec::new();
    let mut at = Position::START;
    while at < reader.synced() {
        let chunk = reader.read(at, bytes_max).await.expect("readable");
        all.extend(payloads(&chunk.records));
        at = chunk.next;
    }
    all
}

#[tokio::test]
async fn what_was_appended_is_replayed_over_segments() {
    let mut bench = Bench::new(1);
    let (mut log, seen) = bench.running().await;
    assert!(seen.is_empty());
    let all = log.fill(1000, 4).await;
    assert_eq!(read_all(&log.reader, 1).await, all);
    assert_eq!(read_all(&log.reader, 3000).await, all);
    let end = log.writer.end();
    drop(log);
    bench.disk.kill();
    let (log, seen) = bench.running().await;
    assert_eq!(seen, all);
    assert_eq!((log.writer.end(), log.report.torn_tail), (end, None));
    assert_eq!(read_all(&log.reader, 500).await, all);
}

#[tokio::test]
async fn replay_begins_where_it_is_told_and_reaches_what_it_must() {
    let mut bench = Bench::new(2);
    let (mut log, _) = bench.running().await;
    let mut all = log.fill(1000, 2).await;
    let from = log.writer.end();
    let last = payload(99, 50);
    log.append_one(&last).await;
    all.push(last.clone());
    let end = log.writer.end();
    drop(log);
    bench.disk.kill();
    let (opened, seen) = bench.open_from(Some(from), end).await.expect("opens");
    assert_eq!(payloads(&seen), [last]);
    assert_eq!(read_all(&opened.reader, 900).await, all);
    let (_, seen) = bench.open_from(Some(end), end).await.expect("opens");
    assert!(seen.is_empty());
    let beyond = Position(end.0 + 8);
    for (from, must_reach) in [(Some(end), beyond), (Some(beyond), Position::START)] {
        let refused = bench.open_from(from, must_reach).await.err();
        let is_it = |wanted: &OpenError| matches!(wanted, OpenError::EndsBefore { .. });
        assert!(refused.as_ref().is_some_and(is_it), "{refused:?}");
    }
}

#[tokio::test]
async fn a_segment_names_what_held_before_its_first_record() {
    let mut bench = Bench::new(3);
    let (mut log, _) = bench.running().await;
    log.fill(900, 3).await;
    let segments = log.reader.segments();
    assert_eq!(&segments[0].context[..], b"before 0");
    for segment in &segments[1..] {
        let context = std::str::from_utf8(&segment.context).expect("text");
        let end: u64 = context["before ".len()..].parse().expect("a number");
        let chunk = log.reader.read(Position(end), 1).await.expect("readable");
        assert!(chunk.records[0].position > segment.base);
        assert_eq!(
            chunk,
            log.reader.read(segment.base, 1).await.expect("readable")
        );
    }
}

/// Power fails at every sync of a run with segment changes, and again in recovery.
#[tokio::test]
async fn no_cut_at_any_sync_loses_an_acknowledged_record() {
    let mut reopenings = 0;
    for moment in [Moment::Before, Moment::During, Moment::After] {
        for number in 1..45 {
            for seed in 0..4 {
                let point = CutPoint::Sync { number, moment };
                reopenings += run_with_cut(seed, point, End::PowerCut).await;
            }
        }
    }
    println!("{reopenings} reopenings");
    assert!(reopenings > 1000);
}

/// The process or the machine ends between any two operations.
#[tokio::test]
async fn no_end_at_any_operation_loses_an_acknowledged_record() {
    for number in 1..140 {
        for end in [End::PowerCut, End::ProcessKilled] {
            run_with_cut(number, CutPoint::Operation { number }, end).await;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    PowerCut,
    /// What was written and not synced is still seen, until the next power cut.
    ProcessKilled,
}

async fn run_with_cut(seed: u64, point: CutPoint, end: End) -> u64 {
    let mut bench = Bench::new(seed * 1000);
    bench.disk.cut_at(point);
    let mut acknowledged: Vec<Bytes> = Vec::new();
    let mut tried: Vec<Bytes> = Vec::new();
    if let Ok((log, _)) = bench.open().await {
        let mut log = Running::new(log);
        for number in 0..30 {
            let group: Vec<Bytes> = (0..3).map(|i| payload(number * 3 + i, 900)).collect();
            let bytes = 3 * framed_bytes(900) as u64;
            let room = log.writer.room();
            while bench.disk.power().is_on() && room.bytes() < bytes {
                tokio::task::yield_now().await;
            }
            tried = acknowledged.clone();
            tried.extend(group.iter().cloned());
            match log.append(&group).await {
                Ok(_) => acknowledged.extend(group),
                Err(_) => break,
            }
        }
    }
    reopen_with_cuts(&mut bench, &acknowledged, &tried, end).await
}

/// Reopens, with the power failing again at each of the recovery's syncs, until it comes through.
async fn reopen_with_cuts(
    bench: &mut Bench,
    acknowledged: &[Bytes],
    tried: &[Bytes],
    end: End,
) -> u64 {
    let mut reopenings = 0;
    loop {
        if end == End::ProcessKilled && reopenings == 0 {
            bench.disk.kill();
        } else {
            bench.disk.reboot();
            cut_during_recovery(&bench.disk, reopenings);
        }
        reopenings += 1;
        match bench.open().await {
            Ok((mut log, seen)) => {
                let seen = payloads(&seen);
                assert!(
                    seen.starts_with(acknowledged),
                    "an acknowledged record is lost"
                );
                assert!(tried.starts_with(&seen), "a record that nobody wrote");
                bench.disk.power().cancel_cut();
                let records = vec![(KIND, vec![Bytes::from_static(b"after")])];
                let more = log.writer.append(records, Bytes::new).await;
                let is_full = matches!(more, Err(AppendError::NoRoom { .. }));
                assert!(more.is_ok() || is_full, "{more:?}");
                // Shown means durable: whatever the opening showed survives the next cut.
                bench.disk.reboot();
                let (reopened, again) = bench.open().await.expect("opens");
                assert_eq!(
                    reopened.report.torn_tail, None,
                    "a tail that was cut off is back"
                );
                let mut durable = seen;
                if more.is_ok() {
                    durable.push(Bytes::from_static(b"after"));
                }
                assert_eq!(payloads(&again), durable, "a shown record is lost");
                return reopenings + 1;
            }
            Err(OpenError::Io { .. }) => {}
            Err(refused) => panic!("refused what no fault but a power cut made: {refused}"),
        }
    }
}

/// At the first sync of the first reopening, the second of the second, and so on.
fn cut_during_recovery(disk: &SimulatedDisk, reopenings: u64) {
    let moment = [Moment::Before, Moment::During, Moment::After][reopenings as usize % 3];
    let number = disk.syncs() + reopenings + 1;
    disk.cut_at(CutPoint::Sync { number, moment });
}

/// Each sector of the last group is lost in turn, as an unordered disk may do.
#[tokio::test]
async fn a_tail_torn_at_any_sector_is_cut_off() {
    let mut bench = Bench::new(5);
    let (mut log, _) = bench.running().await;
    let kept = payload(1, 700);
    log.append_one(&kept).await;
    let from = log.writer.end().0 as usize;
    let group: Vec<Bytes> = (2..6).map(|seed| payload(seed, 900)).collect();
    let end = log.append(&group).await.expect("appended").end.0 as usize;
    drop(log);
    bench.disk.kill();
    let path = bench.segment_paths()[0].clone();
    let image = bench.disk.image(&path).expect("there");
    for sector in from / 512..end.div_ceil(512) {
        let mut torn = image.clone();
        let lost = (sector * 512).max(from)..((sector + 1) * 512).min(end);
        torn[lost].fill(0);
        bench.disk.tamper(&path, |bytes| *bytes = torn);
        let (opened, seen) = bench.open().await.expect("a torn tail is no damage");
        let seen = payloads(&seen);
        assert_eq!(seen[0], kept);
        assert_eq!(seen[1..], group[..seen.len() - 1]);
        assert!(seen.len() < 5);
        assert!(opened.report.torn_tail.is_some() || sector == end / 512);
        drop(opened);
        let (opened, again) = bench.open().await.expect("opens");
        assert_eq!((payloads(&again), opened.report.torn_tail), (seen, None));
    }
}

#[tokio::test]
async fn damage_before_the_end_is_refused_with_its_place() {
    let mut bench = Bench::new(6);
    let (mut log, _) = bench.running().await;
    let first = log.append_one(&payload(1, 700)).await.positions[0];
    log.append_one(&payload(2, 700)).await;
    log.append_one(&payload(3, 700)).await;
    drop(log);
    bench.disk.kill();
    let path = bench.segment_paths()[0].clone();
    bench
        .disk
        .tamper(&path, |bytes| bytes[first.0 as usize + 40] ^= 1);
    let before = bench.disk.image(&path);
    match bench.open().await.err() {
        Some(OpenError::Damaged { file, offset, .. }) => {
            assert_eq!((file, offset), (path.clone(), first.0));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.disk.image(&path), before, "refused and yet changed");
}

#[tokio::test]
async fn damage_is_found_in_whichever_segment() {
    for victim in 0..3 {
        for at in [20, 600, 2000] {
            let mut bench = Bench::new(7);
            let (mut log, _) = bench.running().await;
            log.fill(1500, 3).await;
            log.append_one(&payload(1, 700)).await;
            log.append_one(&payload(2, 700)).await;
            log.append_one(&payload(3, 700)).await;
            drop(log);
            bench.disk.kill();
            let path = bench.segment_paths()[victim].clone();
            bench.disk.tamper(&path, |bytes| bytes[at] ^= 4);
            let outcome = bench.open().await.map(|(log, _)| log.report);
            // The birth alone is repeated in the header.
            let is_birth = at == 20;
            assert_eq!(outcome.is_ok(), is_birth, "{path} {at}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let mut bench = Bench::new(8);
    let (mut log, _) = bench.running().await;
    log.fill(1500, 4).await;
    log.append_one(&payload(3, 700)).await;
    drop(log);
    bench.disk.kill();
    let paths = bench.segment_paths();
    bench.disk.files().remove(&paths[1]).await.expect("removed");
    let refused = bench.open().await.err();
    assert!(
        matches!(refused, Some(OpenError::Damaged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn damage_before_the_replay_stops_no_start() {
    let mut bench = Bench::new(9);
    let (mut log, _) = bench.running().await;
    log.fill(1500, 3).await;
    let from = log.writer.end();
    drop(log);
    bench.disk.kill();
    let paths = bench.segment_paths();
    bench
        .disk
        .tamper(&paths[0], |bytes| bytes[..4096].fill(0xff));
    let (mut opened, _) = bench.open_from(Some(from), from).await.expect("opens");
    assert_eq!(opened.report.unusable, [paths[0].clone()]);
    let cut = opened.reader.read(Position::START, 10).await;
    assert!(matches!(cut, Err(ReadError::Cut { .. })), "{cut:?}");
    let removed = opened.trimmer.remove_before(opened.report.first).await;
    assert_eq!(removed.expect("removed"), 1);
}

#[tokio::test]
async fn old_content_of_reused_blocks_is_never_a_record() {
    let mut bench = Bench::new(10);
    let (mut log, _) = bench.running().await;
    let first = payload(1, 700);
    log.append_one(&first).await;
    let from = log.writer.end().0 as usize;
    log.append_one(&payload(2, 700)).await;
    drop(log);
    bench.disk.kill();
    let path = bench.segment_paths()[0].clone();
    let old = bench.disk.image(&path).expect("there");
    // A fresh log in a fresh folder, whose file gets blocks with that old content behind its end.
    let mut bench = Bench::new(11);
    let (mut log, _) = bench.running().await;
    log.append_one(&first).await;
    assert_eq!(log.writer.end().0 as usize, from);
    drop(log);
    bench.disk.kill();
    bench
        .disk
        .tamper(&path, |bytes| bytes[from..].copy_from_slice(&old[from..]));
    let (opened, seen) = bench.open().await.expect("opens");
    assert_eq!(payloads(&seen), [first]);
    assert!(opened.report.torn_tail.is_some());
}

#[tokio::test]
async fn a_full_disk_refuses_and_takes_again() {
    let mut bench = Bench::new(12);
    bench.disk.set_capacity(40 << 10);
    let (mut log, _) = bench.running().await;
    let room = log.writer.room();
    let mut all = Vec::new();
    let refused = loop {
        // Lets the preparer come to its end.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let before = room.bytes();
        let payload = payload(all.len() as u64, 1000);
        match log.append(std::slice::from_ref(&payload)).await {
            Ok(_) => all.push(payload),
            Err(error) => break (error, before),
        }
    };
    assert!(
        matches!(refused.0, AppendError::NoRoom { .. }),
        "{refused:?}"
    );
    assert!(refused.1 < framed_bytes(1000) as u64, "room was promised");
    assert!(
        bench.disk.used() <= 32 << 10,
        "half a spare keeps its space"
    );
    assert_eq!(read_all(&log.reader, 900).await, all);
    bench.disk.set_capacity(80 << 10);
    room.retry();
    let more = payload(500, 1000);
    log.append_one(&more).await;
    all.push(more);
    drop(log);
    bench.disk.reboot();
    assert_eq!(bench.running().await.1, all);
}

#[tokio::test]
async fn a_failed_sync_poisons_for_ever() {
    let mut bench = Bench::new(13);
    let (mut log, _) = bench.running().await;
    let kept = payload(1, 500);
    log.append_one(&kept).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    bench.disk.power().fail_sync(bench.disk.syncs() + 1);
    let end = log.writer.end();
    let lost = payload(2, 500);
    let failed = log.append(std::slice::from_ref(&lost)).await;
    assert!(
        matches!(failed, Err(AppendError::Failed { .. })),
        "{failed:?}"
    );
    let syncs = bench.disk.syncs();
    let later = log.append(std::slice::from_ref(&lost)).await;
    assert!(matches!(later, Err(AppendError::Poisoned)), "{later:?}");
    assert_eq!((bench.disk.syncs(), log.writer.room().bytes()), (syncs, 0));
    assert_eq!(read_all(&log.reader, 900).await, [kept]);
    assert_eq!(log.writer.room().wait_for(1).await, Err(LogEnded));
    let waited = log.reader.wait_beyond(end).await;
    assert!(matches!(waited, Err(ReadError::Poisoned)), "{waited:?}");
    // The process starts again, the machine did not: the system shows the lost write. What is shown
    // now must be durable.
    drop(log);
    bench.disk.kill();
    let (_, seen) = bench.open().await.expect("opens");
    bench.disk.reboot();
    let (_, again) = bench.open().await.expect("opens");
    assert_eq!(payloads(&again), payloads(&seen));
}

#[tokio::test]
async fn segments_before_a_position_are_removed_and_never_the_current() {
    let mut bench = Bench::new(14);
    let (mut log, _) = bench.running().await;
    let all = log.fill(1500, 4).await;
    let segments = log.reader.segments();
    let kept = log
        .reader
        .read(segments[2].base, 1)
        .await
        .expect("readable");
    let position = kept.records[0].position;
    assert_eq!(
        log.trimmer.remove_before(position).await.expect("removed"),
        2
    );
    assert_eq!(log.reader.segments().len(), 2);
    let cut = log.reader.read(Position::START, 1).await;
    let first = segments[2].base;
    assert!(
        matches!(cut, Err(ReadError::Cut { first: at }) if at == first),
        "{cut:?}"
    );
    assert_eq!(log.reader.read(first, 1).await.expect("readable"), kept);
    let end = log.writer.end();
    assert_eq!(log.trimmer.remove_before(end).await.expect("removed"), 1);
    drop(log);
    bench.disk.reboot();
    let (log, seen) = bench.running().await;
    assert!(all.ends_with(&seen) && !seen.is_empty());
    assert_eq!(log.report.unusable, Vec::<String>::new());
    let missing = bench.open_from(Some(position), end).await.err();
    assert!(
        matches!(missing, Some(OpenError::Missing { .. })),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_reader_follows_the_writer() {
    let mut bench = Bench::new(15);
    let (mut log, _) = bench.running().await;
    let reader = log.reader.clone();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut at = Position::START;
        while seen.len() < 60 {
            reader.wait_beyond(at).await.expect("more comes");
            let chunk = reader.read(at, 2000).await.expect("readable");
            seen.extend(payloads(&chunk.records));
            at = chunk.next;
        }
        seen
    });
    let mut all = Vec::new();
    for number in 0..60 {
        let payload = payload(number, 300 + number as usize * 20);
        log.append_one(&payload).await;
        all.push(payload);
    }
    assert_eq!(follower.await.expect("no panic"), all);
    let reader = log.reader.clone();
    let end = log.writer.end();
    drop(log);
    let closed = reader.wait_beyond(end).await;
    assert!(matches!(closed, Err(ReadError::Closed)), "{closed:?}");
}

#[tokio::test]
async fn a_log_of_another_owner_or_of_a_newer_format_is_refused() {
    let mut bench = Bench::new(16);
    let (mut log, _) = bench.running().await;
    log.append_one(&payload(1, 100)).await;
    drop(log);
    bench.disk.kill();
    let seams = || LogSeams {
        files: bench.disk.files(),
        randomness: Arc::new(SeededRandomness::new(1)),
    };
    let opened_by = |owner| {
        let visit = |_: Record| Ok(());
        open(seams(), options(), owner, None, Position::START, visit)
    };
    let mut other = identity();
    other.cluster = ClusterId::new("other").expect("valid");
    let refused = opened_by(other).await;
    assert!(
        matches!(refused.err(), Some(OpenError::OtherCluster { found, .. }) if found == "test")
    );
    let mut other = identity();
    other.region = Region::new("us").expect("valid");
    let refused = opened_by(other).await;
    assert!(
        matches!(refused.err(), Some(OpenError::OtherRegion { found, .. }) if found == "eu-west")
    );
    let path = bench.segment_paths()[0].clone();
    bench.disk.tamper(&path, |bytes| {
        bytes[8] = 2;
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..40]);
        bytes[40..48].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = bench.open().await.err();
    assert!(
        matches!(refused, Some(OpenError::NewerFormat { found: 2, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_too_large_changes_nothing() {
    let mut bench = Bench::new(17);
    let (mut log, _) = bench.running().await;
    let refused = log.append(&[payload(1, 9 << 10)]).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { .. })),
        "{refused:?}"
    );
    let records = vec![(KIND, vec![payload(1, 10)])];
    let refused = log.writer.append(records, || payload(1, 300)).await;
    assert!(
        matches!(refused, Err(AppendError::ContextTooLarge { .. })),
        "{refused:?}"
    );
    let kept = payload(2, 100);
    log.append_one(&kept).await;
    assert_eq!(read_all(&log.reader, 900).await, [kept]);
}

#[tokio::test]
async fn an_unreadable_sector_is_an_error_and_no_end() {
    let mut bench = Bench::new(18);
    let (mut log, _) = bench.running().await;
    log.fill(1500, 3).await;
    let path = bench.segment_paths()[0].clone();
    bench.disk.fail_reads(&path, 4096..4608);
    let failed = log.reader.read(Position::START, 9000).await;
    assert!(matches!(failed, Err(ReadError::Io { .. })), "{failed:?}");
    drop(log);
    bench.disk.kill();
    let refused = bench.open().await.err();
    assert!(matches!(refused, Some(OpenError::Io { .. })), "{refused:?}");
    bench.disk.heal_reads();
    assert!(bench.open().await.is_ok());
}

/// The same over real files, with writer and preparer on threads of their own.
#[tokio::test]
async fn the_log_runs_on_threads_and_real_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = LogOptions {
        segment_bytes: 256 << 10,
        group_bytes_max: 64 << 10,
        context_bytes_max: 1024,
        ..LogOptions::default()
    };
    let seams = LogSeams {
        files: Arc::new(OsFiles::new(folder.path()).expect("a folder")),
        randomness: Arc::new(OsRandomness),
    };
    let workers = ThreadWorkers::new(tokio::runtime::Handle::current());
    let reopen = async |visit: &mut (dyn FnMut(Record) + Send)| {
        let visit = |record: Record| {
            visit(record);
            Ok(())
        };
        let (seams, options) = (seams.clone(), options.clone());
        let opened = open(seams, options, identity(), None, Position::START, visit).await;
        opened.expect("the log opens")
    };
    let opened = reopen(&mut |_| panic!("a new log is empty")).await;
    let reader = opened.reader.clone();
    let preparer = workers.spawn("log-preparer", Box::pin(opened.preparer.run()));
    let mut writer = opened.writer;
    let work = async move {
        let room = writer.room();
        for number in 0..1000_u64 {
            room.wait_for(64 << 10).await.expect("the log lives");
            let records = vec![(KIND, vec![payload(number, 1500)])];
            writer.append(records, Bytes::new).await.expect("appended");
        }
    };
    let writer = workers.spawn("log-writer", Box::pin(work));
    writer.await.expect("the writer ends");
    preparer.await.expect("the preparer ends with it");
    let all: Vec<Bytes> = (0..1000).map(|number| payload(number, 1500)).collect();
    assert_eq!(read_all(&reader, 9000).await, all);
    assert!(reader.segments().len() > 5);
    let mut seen = Vec::new();
    let opened = reopen(&mut |record| seen.push(record.payload)).await;
    assert_eq!((seen, opened.report.torn_tail), (all, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bit flips, no record is shown that was not written, and if any is missing, then it
    /// is of the last group or the start is refused.
    #[test]
    fn a_flipped_bit_is_never_believed(at: prop::sample::Index, bit in 0..8, segment in 0usize..3) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::new(20);
            let (mut log, _) = bench.running().await;
            let all = log.fill(1500, 2).await;
            drop(log);
            bench.disk.kill();
            let paths = bench.segment_paths();
            let path = &paths[segment.min(paths.len() - 1)];
            bench.disk.tamper(path, |bytes| {
                let at = at.index(bytes.len());
                bytes[at] ^= 1u8 << bit;
            });
            match bench.open().await {
                Ok((_, seen)) => {
                    let seen = payloads(&seen);
                    assert!(all.starts_with(&seen) && seen.len() + 1 >= all.len());
                }
                Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        });
    }
}
