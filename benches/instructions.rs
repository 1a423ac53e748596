//! Instructions of the inner loops, which repeat from run to run: `cargo bench --bench instructions`, with valgrind and
//! the runner that `.ci/run --only instructions` installs.
//!
//! Each loop may need [`TOLERANCE_PERCENT`] more than the figure beside it. Whoever makes one faster lowers its figure.

mod loops;

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use likewise::crdt::dot::Dots;
use likewise::crdt::event::Block;
use likewise::ids::UserId;
use likewise::wire::v1::WriteBatch;

use loops::ITEMS;
use loops::blocks::{self, Posts};
use loops::node::{self, Node};

/// From run to run a hundredth changes, with the times that are encoded and with hash tables whose seeds are drawn; from processor
/// to processor a few, with the copying that the C library chooses.
const TOLERANCE_PERCENT: u64 = 10;
/// Batches or blocks of one measurement.
const COUNT: u64 = 10;
/// Blocks that the node has before.
const BEFORE: u64 = 100;
const SPREAD: Posts = Posts::Spread(10_000);

/// The figure is of one like.
fn at_most(instructions: u64, likes: u64) -> LibraryBenchmarkConfig {
    let most = instructions * likes * (100 + TOLERANCE_PERCENT) / 100;
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, most)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn writing(of: Posts) -> (Node, Vec<WriteBatch>) {
    (Node::with_blocks(BEFORE, of), node::batches(COUNT, of))
}

#[library_benchmark]
#[bench::hot_post(args = (Posts::Hot), setup = writing, config = at_most(3_030, COUNT * ITEMS))]
#[bench::many_posts(args = (SPREAD), setup = writing, config = at_most(5_280, COUNT * ITEMS))]
fn write((node, batches): (Node, Vec<WriteBatch>)) -> Node {
    node.write(batches);
    node
}

fn merging(of: Posts) -> (Node, Vec<Bytes>) {
    let blocks = node::peer_blocks(BEFORE, COUNT, of);
    (Node::with_blocks(BEFORE, of), blocks)
}

#[library_benchmark]
#[bench::hot_post(args = (Posts::Hot), setup = merging, config = at_most(2_760, COUNT * ITEMS))]
#[bench::many_posts(args = (SPREAD), setup = merging, config = at_most(3_680, COUNT * ITEMS))]
fn merge((node, blocks): (Node, Vec<Bytes>)) -> (Node, Vec<Bytes>) {
    node.apply(&blocks);
    (node, blocks)
}

fn block_of(of: Posts) -> Block {
    blocks::block(1, of)
}

fn bytes_of(of: Posts) -> Vec<u8> {
    blocks::encode(&block_of(of))
}

#[library_benchmark]
#[bench::hot_post(args = (Posts::Hot), setup = block_of, config = at_most(192, ITEMS))]
#[bench::many_posts(args = (SPREAD), setup = block_of, config = at_most(487, ITEMS))]
fn encode(block: Block) -> (Block, Vec<u8>) {
    let bytes = blocks::encode(black_box(&block));
    (block, bytes)
}

#[library_benchmark]
#[bench::hot_post(args = (Posts::Hot), setup = bytes_of, config = at_most(456, ITEMS))]
#[bench::many_posts(args = (SPREAD), setup = bytes_of, config = at_most(903, ITEMS))]
fn decode(bytes: Vec<u8>) -> (Vec<u8>, Block) {
    let block = blocks::decode(black_box(&bytes));
    (bytes, block)
}

#[library_benchmark]
#[bench::bucket(args = (), setup = blocks::bucket, config = at_most(500, ITEMS))]
fn encode_likers(likers: Vec<(UserId, Dots)>) -> (Vec<(UserId, Dots)>, Vec<u8>) {
    let bytes = blocks::encode_likers(black_box(&likers));
    (likers, bytes)
}

fn bytes_of_bucket() -> Vec<u8> {
    blocks::encode_likers(&blocks::bucket())
}

#[library_benchmark]
#[bench::bucket(args = (), setup = bytes_of_bucket, config = at_most(390, ITEMS))]
fn decode_likers(bytes: Vec<u8>) -> (Vec<u8>, Vec<(UserId, Dots)>) {
    let likers = blocks::decode_likers(black_box(&bytes));
    (bytes, likers)
}

library_benchmark_group!(
    name = inner_loops,
    benchmarks = [write, merge, encode, decode, encode_likers, decode_likers]
);

main!(library_benchmark_groups = inner_loops);
