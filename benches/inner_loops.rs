//! Times of the inner loops: `cargo bench --bench inner_loops`.
//!
//! What a batch of 1,000 likes costs on its way through the engine, a block of 1,000 of a peer's likes likewise, and their
//! encodings. The same loops are counted in instructions by `instructions.rs`.

mod loops;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use loops::ITEMS;
use loops::blocks::{self, Posts};
use loops::node::{self, Node};

const POSTS: [(&str, Posts); 2] = [
    ("hot post", Posts::Hot),
    ("10,000 posts", Posts::Spread(10_000)),
];
/// Blocks that a node has before.
const BEFORE: u64 = 100;

fn write_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write a batch of 1,000 likes");
    group
        .throughput(Throughput::Elements(ITEMS))
        .sample_size(20);
    for (name, of) in POSTS {
        let node = Node::with_blocks(BEFORE, of);
        let mut batches = node::batches(20_000, of).into_iter();
        group.bench_function(name, |bencher| {
            let batch = || vec![batches.next().expect("enough batches")];
            bencher.iter_batched(batch, |batch| node.write(batch), BatchSize::SmallInput);
        });
    }
}

fn merge_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply a block of 1,000 likes");
    group
        .throughput(Throughput::Elements(ITEMS))
        .sample_size(20);
    for (name, of) in POSTS {
        let node = Node::with_blocks(BEFORE, of);
        let mut next = BEFORE;
        group.bench_function(name, |bencher| {
            let block = || {
                next += 1;
                node::peer_blocks(next - 1, 1, of)
            };
            bencher.iter_batched(block, |block| node.apply(&block), BatchSize::PerIteration);
        });
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(ITEMS));
    for (name, of) in POSTS {
        let block = blocks::block(1, of);
        let bytes = blocks::encode(&block);
        group.bench_function(format!("encode, {name}"), |bencher| {
            bencher.iter(|| blocks::encode(&block));
        });
        group.bench_function(format!("decode, {name}"), |bencher| {
            bencher.iter(|| blocks::decode(&bytes));
        });
    }
    let bucket = blocks::bucket();
    let bytes = blocks::encode_likers(&bucket);
    group.bench_function("encode likers", |bencher| {
        bencher.iter(|| blocks::encode_likers(&bucket));
    });
    group.bench_function("decode likers", |bencher| {
        bencher.iter(|| blocks::decode_likers(&bytes));
    });
}

criterion_group!(inner_loops, write_path, merge_path, codec);
criterion_main!(inner_loops);
