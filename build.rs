//! Compiles the proto files without protoc, and notes which commit is built.

#[path = "build/shapes.rs"]
mod shapes;

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const PROTOS: [&str; 6] = [
    "likewise/v1/types.proto",
    "likewise/v1/like_service.proto",
    "likewise/v1/counter_service.proto",
    "likewise/v1/cluster_service.proto",
    "likewise/admin/v1/admin_service.proto",
    "likewise/replication/v1/replication_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut for_clients = descriptors.clone();
    let is_for_peers = |name: &str| name.starts_with("likewise/replication/");
    for_clients.file.retain(|file| !is_for_peers(file.name()));
    let set = prost::Message::encode_to_vec(&for_clients);
    std::fs::write(out_dir.join("client_descriptors.bin"), set)?;
    std::fs::write(out_dir.join("shapes.rs"), shapes::table(&descriptors))?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::wire::codec::BoundedCodec")
        .compile_fds_with_config(descriptors, config)?;
    note_commit();
    Ok(())
}

/// A build outside a git checkout is legitimate; it says so in `--version`.
fn note_commit() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let commit = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=LIKEWISE_COMMIT={commit}");
}
