//! A damaged checkpoint store of a node that never had a peer: the log has it all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::node::{Setup, copy_folder};

const USERS: u64 = 150;

/// A folder with several checkpoints and writes after the last, ended by SIGKILL.
async fn written(folder: &Path) -> Setup {
    let setup = Setup::new("eu", folder.join("eu")).set("CHECKPOINT__INTERVAL_MS", 100);
    for round in 0..3 {
        let node = setup.start().await;
        for number in 0..USERS / 3 {
            let user = format!("u{round}-{number}");
            node.client.like("p", &user).await.expect("taken");
            node.client
                .like(&format!("p{}", number % 7), &user)
                .await
                .expect("taken");
        }
        node.client
            .unlike("p", &format!("u{round}-0"))
            .await
            .expect("taken");
        match round {
            2 => node.kill().await,
            _ => node.stop().await,
        }
    }
    setup
}

fn set_aside(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder).expect("readable");
    let mut paths = names.map(|entry| entry.expect("readable").path());
    paths.find(|path| path.to_string_lossy().contains("sled.damaged-"))
}

async fn is_whole(setup: &Setup, how: &str) {
    let node = setup.start().await;
    assert_eq!(
        node.count("p").await,
        USERS - 3,
        "{how}\n{}",
        setup.stderr()
    );
    for round in 0..3 {
        for number in 0..USERS / 3 {
            let (_, likes) = node.likes("p", &format!("u{round}-{number}")).await;
            assert_eq!(likes, number > 0, "{how}: u{round}-{number}");
        }
    }
    let mut others = 0;
    for post in 0..7 {
        others += node.count(&format!("p{post}")).await;
    }
    assert_eq!(others, USERS, "{how}");
    node.client.like("p", "afterwards").await.expect("taken");
    node.stop().await;
    let again = setup.start().await;
    assert_eq!(again.count("p").await, USERS - 2, "{how}, once more");
    again.kill().await;
}

fn flip(path: &Path, from: usize, bytes: usize) {
    let mut content = fs::read(path).expect("readable");
    let until = (from + bytes).min(content.len());
    content[from..until]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x5a);
    fs::write(path, content).expect("written");
}

#[tokio::test]
async fn a_damaged_checkpoint_store_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = written(folder.path()).await;
    let db = fs::metadata(origin.folder.join("sled/db"))
        .expect("sled's file")
        .len() as usize;
    type Harm = Box<dyn Fn(&Path)>;
    let mut harms: Vec<(String, bool, Harm)> = vec![
        (
            "the folder is gone".to_owned(),
            false,
            Box::new(|sled| fs::remove_dir_all(sled).expect("removed")),
        ),
        (
            "conf is garbage".to_owned(),
            true,
            Box::new(|sled| {
                fs::write(sled.join("conf"), b"no configuration of any store").expect("written")
            }),
        ),
        (
            "all of db is flipped".to_owned(),
            false,
            Box::new(move |sled| flip(&sled.join("db"), 0, db)),
        ),
        (
            "db is empty".to_owned(),
            false,
            Box::new(|sled| fs::write(sled.join("db"), b"").expect("written")),
        ),
    ];
    for part in 0..4 {
        let at = db * part / 4;
        let place = format!("{at} of {db}");
        harms.push((
            format!("64 bytes flipped at {place}"),
            false,
            Box::new(move |sled| flip(&sled.join("db"), at, 64)),
        ));
        harms.push((
            format!("db cut off at {place}"),
            false,
            Box::new(move |sled| {
                let file = fs::OpenOptions::new().write(true).open(sled.join("db"));
                file.expect("opens").set_len(at as u64).expect("cut");
            }),
        ));
    }
    for (index, (how, surely_aside, harm)) in harms.iter().enumerate() {
        let copy = folder.path().join(format!("copy-{index}"));
        copy_folder(&origin.folder, &copy);
        harm(&copy.join("sled"));
        let setup = Setup::new("eu", copy.clone()).set("CHECKPOINT__INTERVAL_MS", 100);
        is_whole(&setup, how).await;
        let aside = set_aside(&copy);
        assert!(
            aside.is_some() || !*surely_aside,
            "{how}: the store was kept"
        );
        if let Some(aside) = aside {
            let name = aside.file_name().expect("a name").to_string_lossy();
            let said = setup.stderr();
            assert!(
                said.contains("was set aside") && said.contains(&*name),
                "{how}: {said}"
            );
        }
        fs::remove_dir_all(&copy).expect("removed");
    }
}
