//! One contract for each seam, held against all that is plugged into it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use likewise::adapters::chitchat_membership::{ChitchatMembership, GossipOptions, Home};
use likewise::adapters::fixed_membership::FixedMembership;
use likewise::adapters::memory_store::MemoryDevice;
use likewise::adapters::os_files::OsFiles;
use likewise::adapters::power::{CutPoint, Moment, Power};
use likewise::adapters::simulated_disk::SimulatedDisk;
use likewise::adapters::sled_store::SledStore;
use likewise::counts::Counts;
use likewise::ids::{ClusterId, Epoch, Region, Replica};
use likewise::seams::files::{read_whole, write_whole};
use likewise::seams::membership::{Announcement, Liveness, Membership};
use likewise::seams::{CheckpointStore, Files};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn system_files_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("data/eu");
    files_contract(Arc::new(OsFiles::new(root).expect("created"))).await;
}

#[tokio::test]
async fn simulated_files_keep_the_contract() {
    files_contract(SimulatedDisk::new(1).files()).await;
}

async fn files_contract(files: Arc<dyn Files>) {
    names_contract(files.as_ref()).await;
    bytes_contract(files.as_ref()).await;
    locks_contract(files.as_ref()).await;
}

async fn names_contract(files: &dyn Files) {
    let kind = |error: std::io::Error| error.kind();
    files.create_folder("a/b").await.expect("created");
    files.create_folder("a/b").await.expect("there already");
    for name in ["a/b/2", "a/b/1", "a/3"] {
        files.create(name).await.expect("created");
    }
    assert_eq!(files.list("a/b").await.expect("listed"), ["1", "2"]);
    assert_eq!(files.list("a").await.expect("listed"), ["3"]);
    assert_eq!(
        files.list("c").await.map_err(kind),
        Err(ErrorKind::NotFound)
    );
    let again = files.create("a/3").await.map(drop);
    assert_eq!(again.map_err(kind), Err(ErrorKind::AlreadyExists));
    let missing = files.open("a/4").await.map(drop);
    assert_eq!(missing.map_err(kind), Err(ErrorKind::NotFound));
    files.rename("a/b/1", "a/3").await.expect("replaces");
    files.remove("a/b/2").await.expect("removed");
    assert_eq!(
        files.remove("a/b/2").await.map_err(kind),
        Err(ErrorKind::NotFound)
    );
    assert!(files.list("a/b").await.expect("listed").is_empty());
    files.sync_folder("a/b").await.expect("synced");
    files.sync_folder("").await.expect("synced");
}

async fn bytes_contract(files: &dyn Files) {
    let file = files.create("file").await.expect("created");
    file.write_at(3, bytes("def")).await.expect("written");
    assert_eq!(file.len().await.expect("known"), 6);
    assert_eq!(&file.read_at(0, 100).await.expect("read")[..], b"\0\0\0def");
    assert!(file.read_at(50, 10).await.expect("read").is_empty());
    file.allocate(4).await.expect("there already");
    file.allocate(3 << 20).await.expect("allocated");
    assert_eq!(file.len().await.expect("known"), 3 << 20);
    let zeros = file.read_at(6, 3 << 20).await.expect("read");
    assert_eq!(zeros.len(), (3 << 20) - 6);
    assert!(zeros.iter().all(|byte| *byte == 0));
    file.sync().await.expect("synced");
    file.truncate(4).await.expect("cut");
    file.truncate(9).await.expect("shorter already");
    let reopened = files.open("file").await.expect("opened");
    files.remove("file").await.expect("removed");
    assert_eq!(
        &reopened.read_at(0, 10).await.expect("still read")[..],
        b"\0\0\0d"
    );
    write_whole(files, "whole", bytes("one"))
        .await
        .expect("written");
    write_whole(files, "whole", bytes("two"))
        .await
        .expect("replaced");
    assert_eq!(
        read_whole(files, "whole").await.expect("read"),
        bytes("two")
    );
    assert!(
        !files
            .list("")
            .await
            .expect("listed")
            .contains(&"whole.tmp".to_owned())
    );
}

async fn locks_contract(files: &dyn Files) {
    let guard = files.lock("lock").await.expect("free");
    let second = files.lock("lock").await.map(drop);
    assert_eq!(
        second.map_err(|error| error.kind()),
        Err(ErrorKind::WouldBlock)
    );
    drop(guard);
    drop(files.lock("lock").await.expect("free again"));
}

#[tokio::test]
async fn a_replaced_file_is_old_or_new_after_a_cut() {
    for seed in 0..20 {
        for number in 1..10 {
            for moment in [Moment::Before, Moment::During, Moment::After] {
                let disk = SimulatedDisk::new(seed);
                disk.cut_at(CutPoint::Sync { number, moment });
                let files = disk.files();
                let one = write_whole(files.as_ref(), "f", bytes("one")).await.is_ok();
                let two = write_whole(files.as_ref(), "f", bytes("two")).await.is_ok();
                disk.reboot();
                match read_whole(disk.files().as_ref(), "f").await {
                    Ok(found) if two => assert_eq!(found, bytes("two")),
                    Ok(found) if one => assert!(found == bytes("one") || found == bytes("two")),
                    Ok(found) => assert_eq!(found, bytes("one")),
                    Err(_) => assert!(!one, "a durable file is gone"),
                }
            }
        }
    }
}

#[tokio::test]
async fn unsynced_writes_survive_in_every_combination() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..1000 {
        let disk = SimulatedDisk::new(seed);
        let file = synced_file(&disk, 2048).await;
        file.write_at(0, Bytes::from(vec![1; 1024]))
            .await
            .expect("written");
        file.write_at(1024, Bytes::from(vec![2; 512]))
            .await
            .expect("written");
        disk.reboot();
        assert!(
            file.read_at(0, 1).await.is_err(),
            "a handle of before the cut"
        );
        let image = disk.image("f").expect("named durably");
        let sectors: Vec<u8> = image.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            image
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
        outcomes.insert(sectors);
    }
    assert_eq!(outcomes.len(), 8, "{outcomes:?}");
}

async fn synced_file(disk: &SimulatedDisk, len: u64) -> Arc<dyn likewise::seams::File> {
    let files = disk.files();
    let file = files.create("f").await.expect("created");
    file.allocate(len).await.expect("allocated");
    file.sync().await.expect("synced");
    files.sync_folder("").await.expect("synced");
    file
}

#[tokio::test]
async fn a_sync_covers_what_was_written_before_it_and_no_more() {
    let disk = SimulatedDisk::new(4);
    let file = synced_file(&disk, 1024).await;
    let (begun, held) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(tokio::sync::Mutex::new(Some(held)));
    file.write_at(0, bytes("covered")).await.expect("written");
    disk.set_latency(Some(Arc::new(move |operation| {
        let held = Arc::clone(&held);
        Box::pin(async move {
            if operation == likewise::adapters::simulated_disk::Operation::Sync
                && let Some(held) = held.lock().await.take()
            {
                held.await.expect("released");
            }
        })
    })));
    let later = async {
        file.write_at(512, bytes("later")).await.expect("written");
        begun.send(()).expect("the sync waits");
    };
    let (synced, ()) = tokio::join!(file.sync(), later);
    synced.expect("synced");
    disk.cut_at(CutPoint::Sync {
        number: disk.syncs() + 1,
        moment: Moment::Before,
    });
    assert!(disk.files().sync_folder("").await.is_err());
    disk.reboot();
    let image = disk.image("f").expect("there");
    assert_eq!((&image[..7], image[512]), (&b"covered"[..], 0));
}

#[tokio::test]
async fn a_failed_sync_is_not_made_good_by_the_next() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let file = synced_file(&disk, 512).await;
        file.write_at(0, bytes("x")).await.expect("written");
        disk.power().fail_sync(disk.syncs() + 1);
        assert!(file.sync().await.is_err());
        file.sync().await.expect("lies");
        disk.kill();
        assert_eq!(
            disk.image("f").expect("there")[0],
            b'x',
            "a killed process loses nothing"
        );
        disk.reboot();
        lost += u32::from(disk.image("f").expect("there")[0] == 0);
    }
    assert!(lost > 5);
}

#[tokio::test]
async fn a_full_disk_says_so_and_one_seed_gives_one_image() {
    let run = async |seed| {
        let disk = SimulatedDisk::new(seed);
        disk.set_capacity(1500);
        let file = synced_file(&disk, 1000).await;
        let full = file.allocate(2000).await.expect_err("full");
        assert_eq!((full.kind(), disk.used()), (ErrorKind::StorageFull, 1500));
        let full = file.write_at(1499, bytes("ab")).await.expect_err("full");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        file.write_at(0, Bytes::from(vec![9; 1200]))
            .await
            .expect("inside");
        let copy = disk.copy(1);
        disk.reboot();
        assert_eq!(copy.image("f").expect("there").len(), 1500);
        disk.image("f")
    };
    assert_eq!(run(5).await, run(5).await);
}

#[tokio::test]
async fn sled_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SledStore::open(folder.path().join("sled"), 8 << 20).expect("opened");
    store_contract(&store).await;
    drop(store);
    let store = SledStore::open(folder.path().join("sled"), 8 << 20).expect("reopened");
    assert_eq!(
        store
            .get(b"large")
            .await
            .expect("read")
            .map(|value| value.len()),
        Some(100_000)
    );
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    store_contract(MemoryDevice::default().store().as_ref()).await;
}

async fn store_contract(store: &dyn CheckpointStore) {
    let put = |key: &str, value: &'static str| (key.as_bytes().to_vec(), Some(bytes(value)));
    assert_eq!(store.get(b"a").await.expect("read"), None);
    assert!(store.scan(None, 10).await.expect("read").is_empty());
    let batch = vec![
        put("b", "2"),
        put("a", "0"),
        put("c", "3"),
        put("a", "1"),
        (b"c".into(), None),
    ];
    store.apply(batch).await.expect("applied");
    assert_eq!(store.get(b"a").await.expect("read"), Some(bytes("1")));
    store
        .apply(vec![put("b2", ""), put("d", "4")])
        .await
        .expect("applied");
    let keys = async |after: Option<&[u8]>, rows_max| {
        let rows = store
            .scan(after.map(<[u8]>::to_vec), rows_max)
            .await
            .expect("read");
        let keys = rows
            .into_iter()
            .map(|(key, _)| String::from_utf8(key).expect("text"));
        keys.collect::<Vec<_>>()
    };
    assert_eq!(keys(None, 10).await, ["a", "b", "b2", "d"]);
    assert_eq!(keys(None, 2).await, ["a", "b"]);
    assert_eq!(keys(Some(b"b"), 2).await, ["b2", "d"]);
    assert_eq!(keys(Some(b"b1"), 1).await, ["b2"]);
    assert!(keys(Some(b"d"), 1).await.is_empty());
    let large = Bytes::from(vec![7; 100_000]);
    store
        .apply(vec![(b"large".to_vec(), Some(large.clone()))])
        .await
        .expect("applied");
    store.sync().await.expect("synced");
    store.sync().await.expect("synced again");
    assert_eq!(store.get(b"large").await.expect("read"), Some(large));
}

#[tokio::test]
async fn after_a_cut_a_prefix_of_the_batches_is_there() {
    let mut survivors = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let device = MemoryDevice::new(Power::new(seed));
        let store = device.store();
        for number in 0..6_u8 {
            store
                .apply(vec![(vec![number], Some(bytes("v")))])
                .await
                .expect("applied");
            if number == 2 {
                store.sync().await.expect("synced");
            }
        }
        device.reboot();
        assert!(store.get(&[0]).await.is_err(), "a store of before the cut");
        let rows = device.store().scan(None, 10).await.expect("read");
        let keys: Vec<u8> = rows.into_iter().map(|(key, _)| key[0]).collect();
        assert!(keys.len() >= 3 && (0..6).collect::<Vec<u8>>().starts_with(&keys));
        survivors.insert(keys.len());
    }
    assert_eq!(survivors.len(), 4);
}

#[tokio::test]
async fn one_supply_darkens_disk_and_store_together() {
    let disk = SimulatedDisk::new(3);
    let device = MemoryDevice::new(disk.power().clone());
    let store = device.store();
    disk.cut_at(CutPoint::Sync {
        number: 1,
        moment: Moment::After,
    });
    store
        .apply(vec![(b"k".to_vec(), Some(bytes("v")))])
        .await
        .expect("applied");
    assert!(store.sync().await.is_err());
    assert!(disk.files().create("f").await.is_err());
    device.lose_unsynced();
    disk.reboot();
    let kept = device.store().get(b"k").await.expect("read");
    assert_eq!(
        kept,
        Some(bytes("v")),
        "the sync was done, and nobody was told"
    );
}

fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

fn announcement(own: &Replica) -> Announcement {
    Announcement {
        own: own.clone(),
        address: Some(
            format!("{}.example:7401", own.region)
                .parse()
                .expect("valid"),
        ),
        frontier: 1,
        fingerprint: None,
        protocol: (1, 1),
    }
}

fn gossip() -> Arc<dyn Membership> {
    let options = GossipOptions {
        cluster: ClusterId::new("test").expect("valid"),
        regions: None,
        interval: Duration::from_millis(50),
        dead_after: Duration::from_millis(500),
        forget_after: Duration::from_secs(60),
    };
    let started = ChitchatMembership::start(Home::Task, options, Arc::new(Counts::default()));
    Arc::new(started.expect("no thread is needed"))
}

/// Carries what two memberships say to each other.
fn connect(one: (&Arc<dyn Membership>, &Replica), other: (&Arc<dyn Membership>, &Replica)) {
    let here = Arc::new(one.0.correspond(other.1).expect("room"));
    let there = Arc::new(other.0.correspond(one.1).expect("room"));
    for (from, to) in [(here.clone(), there.clone()), (there, here)] {
        tokio::spawn(async move {
            while let Some(message) = from.next().await {
                to.deliver(message);
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn gossip_keeps_the_contract() {
    let all = ["us", "ap", "eu"].map(|region| (gossip(), replica(region, 1)));
    for (membership, own) in &all {
        membership.announce(announcement(own));
    }
    let [us, ap, eu] = &all;
    connect((&us.0, &us.1), (&ap.0, &ap.1));
    connect((&ap.0, &ap.1), (&eu.0, &eu.1));
    membership_contract(us.0.as_ref(), &us.1).await;
}

#[tokio::test(start_paused = true)]
async fn a_fixed_membership_keeps_the_contract() {
    let listed = ["eu", "ap"].map(|region| {
        let address = format!("{region}.example:7401").parse().expect("valid");
        (Region::new(region).expect("valid"), address)
    });
    let membership = FixedMembership::new(listed);
    membership_contract(&membership, &replica("us", 1)).await;
}

/// Of a membership that comes to know `ap` and `eu` at their addresses.
async fn membership_contract(membership: &dyn Membership, own: &Replica) {
    let mut members = membership.members();
    membership.announce(announcement(own));
    let known = members.wait_for(|members| {
        let found = members.iter().filter(|member| member.address.is_some());
        found.count() == 2 && members.iter().all(|one| one.liveness != Liveness::Gone)
    });
    let known = tokio::time::timeout(Duration::from_secs(60), known).await;
    let known = known.expect("in time").expect("it runs").clone();
    let told: Vec<_> = known
        .iter()
        .map(|member| {
            (
                member.region.as_str(),
                member.address.as_ref().expect("said").to_string(),
            )
        })
        .collect();
    let expected = ["ap", "eu"].map(|region| (region, format!("{region}.example:7401")));
    assert_eq!(told, expected, "by region, without the node itself");
    // What is no news changes nothing.
    members.borrow_and_update();
    membership.announce(announcement(own));
    let changed = tokio::time::timeout(Duration::from_millis(300), members.changed()).await;
    assert!(changed.is_err());
    let peer = replica("sa", 1);
    let corresponds = membership.corresponds();
    assert_eq!(membership.correspond(&peer).is_ok(), corresponds);
    membership.stop();
    membership.announce(announcement(&replica("us", 2)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*membership.members().borrow(), known);
}
