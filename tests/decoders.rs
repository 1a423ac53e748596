//! Every decoder that reads foreign or disk bytes, on the seeds of the fuzz targets and on all that they ever found.

#[path = "fuzz/properties/mod.rs"]
mod properties;

use std::fs;
use std::path::Path;

/// The files of a folder of a target; none where nothing was found yet.
fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz")
        .join(kind)
        .join(target);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .map(|path| {
            (
                path.display().to_string(),
                fs::read(&path).expect("readable"),
            )
        })
        .collect()
}

#[test]
fn seeds_and_findings_hold_their_properties() {
    for (target, property) in properties::ALL {
        let seeds = inputs("corpus", target);
        assert!(!seeds.is_empty(), "{target} has seeds");
        for (name, bytes) in seeds.into_iter().chain(inputs("findings", target)) {
            println!("{name}");
            property(&bytes);
            // And what is left when it is torn anywhere, or one bit is wrong.
            for at in 0..bytes.len().min(300) {
                property(&bytes[..at]);
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << (at % 8);
                property(&wrong);
            }
        }
    }
}
