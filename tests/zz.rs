mod support;
use support::Machine;
#[test]
fn cost() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let began = std::time::Instant::now();
    for n in 0..1000 {
        runtime.block_on(async {
            let mut machine = Machine::new("eu", n);
            machine.shards = 1;
            let _node = machine.start().await;
        });
    }
    println!("start {:?}", began.elapsed() / 1000);
    let began = std::time::Instant::now();
    for n in 0..1000 {
        runtime.block_on(async {
            let mut machine = Machine::new("eu", n);
            machine.shards = 1;
            let node = machine.start().await;
            for _ in 0..10 {
                node.like("p", "ann").await;
            }
        });
    }
    println!("start and ten likes {:?}", began.elapsed() / 1000);
}
