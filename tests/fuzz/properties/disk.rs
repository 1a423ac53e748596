//! What lies on the disk: rows, segments of the log, the stage of a snapshot.

use std::future::Future;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use likewise::adapters::simulated_disk::SimulatedDisk;
use likewise::adapters::system::SeededRandomness;
use likewise::crdt::dot::Dots;
use likewise::engine::replicas::ReplicaTable;
use likewise::engine::rows::{self, PostKey};
use likewise::engine::stage as staged;
use likewise::ids::{ClusterId, Region, UserId};
use likewise::log::{
    LogIdentity, LogOptions, LogSeams, OpenError, OpenedLog, Position, Record, RecordKind, open,
};
use likewise::seams::files::write_whole;
use likewise::versions::CHECKPOINT_FORMAT;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(work)
}

/// They are written in an order of their own.
fn in_order(mut likers: Vec<(UserId, Dots)>) -> Vec<(UserId, Dots)> {
    let dots = |dots: &Dots| -> Vec<_> { dots.iter().map(|dot| (dot.replica, dot.seq)).collect() };
    likers.sort_by_cached_key(|(user, its)| (user.clone(), dots(its)));
    likers
}

/// Rows say the same after they were written again. The checksum is made right, or nothing behind it would be
/// reached.
pub fn rows(bytes: &[u8]) {
    let sealed = [
        &[CHECKPOINT_FORMAT],
        &crc32fast::hash(bytes).to_be_bytes()[..],
        bytes,
    ]
    .concat();
    for row in [bytes, &sealed] {
        let table = ReplicaTable::default();
        if let Ok(likers) = rows::decode_likers(row, &table) {
            let again = rows::encode_likers(&likers, &table.all()).expect("our own");
            let read = rows::decode_likers(&again, &table).expect("our own");
            assert_eq!(in_order(read), in_order(likers));
        }
        if let Ok(figures) = rows::decode_figures(row, &table) {
            let again = rows::encode_figures(&figures, &table.all()).expect("our own");
            assert_eq!(
                rows::decode_figures(&again, &table).expect("our own"),
                figures
            );
        }
        if let Ok(posts) = rows::decode_pack(row, &table) {
            let again = rows::encode_pack(&posts, &table.all()).expect("our own");
            assert_eq!(rows::decode_pack(&again, &table).expect("our own"), posts);
        }
        if let Ok(meta) = rows::decode_meta(row) {
            let again = rows::encode_meta(&meta).expect("our own");
            let read = rows::decode_meta(&again).expect("our own");
            assert_eq!(rows::encode_meta(&read).expect("our own"), again);
        }
        drop(rows::decode_shows(row));
        if let Ok(Some(key)) = rows::post_key(row) {
            let again = match &key {
                PostKey::Pack(from) => rows::pack_key(*from),
                PostKey::Figures(post) => rows::figures_key(post),
                PostKey::Likers(post, from) => rows::likers_key(post, *from),
            };
            assert_eq!(again, row);
        }
    }
}

const RECORDS: usize = 24;

fn options() -> LogOptions {
    LogOptions {
        folder: "log".to_owned(),
        segment_bytes: 4 << 10,
        group_bytes_max: 2 << 10,
        context_bytes_max: 64,
        recent_bytes: 1 << 10,
    }
}

async fn reopen(disk: &SimulatedDisk, seed: u64) -> Result<(OpenedLog, Vec<Record>), OpenError> {
    let seams = LogSeams {
        files: disk.files(),
        randomness: Arc::new(SeededRandomness::new(seed)),
    };
    let identity = LogIdentity {
        cluster: ClusterId::new("c").expect("valid"),
        region: Region::new("eu").expect("valid"),
    };
    let mut seen = Vec::new();
    let visit = |record| {
        seen.push(record);
        Ok(())
    };
    let log = open(seams, options(), identity, None, Position::START, visit).await?;
    Ok((log, seen))
}

/// A log of a few segments, and the records in it.
static WRITTEN: LazyLock<(SimulatedDisk, Vec<Record>)> = LazyLock::new(|| {
    run(async {
        let disk = SimulatedDisk::new(1);
        for round in 0..RECORDS {
            // Each opening allocates the spare segment that the next record may need.
            let (mut log, _) = reopen(&disk, round as u64).await.expect("opens");
            let payload = Bytes::from(vec![round as u8 + 1; 64 + 32 * round]);
            let records = vec![(RecordKind(7), vec![payload])];
            tokio::select! {
                biased;
                appended = log.writer.append(records, Bytes::new) => drop(appended.expect("room")),
                () = log.preparer.run() => {}
            }
        }
        let (_, seen) = reopen(&disk, 99).await.expect("opens");
        assert_eq!(seen.len(), RECORDS);
        (disk, seen)
    })
});

/// Whatever is changed in the files: the log is refused, or opens with the records that were written, in their order
/// and from the first; and what it opened once it opens again.
pub fn log_segments(bytes: &[u8]) {
    let (disk, written) = &*WRITTEN;
    let disk = disk.copy(7);
    let paths: Vec<String> = disk
        .paths()
        .into_iter()
        .filter(|path| path.starts_with("log/"))
        .collect();
    for change in bytes.chunks_exact(4).take(64) {
        let path = &paths[change[0] as usize % paths.len()];
        let place = usize::from(change[1]) << 8 | usize::from(change[2]);
        disk.tamper(path, |content| match content.len() {
            0 => {}
            len if change[0] & 0x80 != 0 => content.truncate(place % len),
            len => content[place % len] ^= change[3],
        });
    }
    run(async {
        let Ok((log, seen)) = reopen(&disk, 8).await else {
            return;
        };
        assert_eq!(seen, written[..seen.len()]);
        drop(log);
        let (_, again) = reopen(&disk, 9).await.expect("it was opened before");
        assert_eq!(again, seen);
    });
}

/// The stage: bytes as the whole file, and as one frame with the right checksum.
pub fn stage(bytes: &[u8]) {
    let framed = [
        &(bytes.len() as u32).to_be_bytes()[..],
        &crc32fast::hash(bytes).to_be_bytes(),
        bytes,
        &[0xff; 4],
        &[0; 4],
    ];
    let expected = (!bytes.is_empty()).then_some(1);
    assert_eq!(frames_of(framed.concat()), expected, "a frame is not empty");
    frames_of(bytes.to_vec());
}

/// How many frames there are, if the file can be read.
fn frames_of(file: Vec<u8>) -> Option<usize> {
    run(async {
        let files = SimulatedDisk::new(1).files();
        files.create_folder("stage").await.expect("room");
        let written = write_whole(files.as_ref(), "stage/ready", file.into()).await;
        written.expect("room");
        let mut reader = staged::open(files.as_ref()).await.expect("it is there");
        let mut frames = 0;
        while reader.next().await.ok()?.is_some() {
            frames += 1;
        }
        Some(frames)
    })
}
