//! Wires between nodes, told what to do by lines of the standard input.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};

use crate::process::Wire;
use crate::process::counted::Counted;

/// `lead ADDRESS` says where it leads, `crossed` asks how many bytes have crossed it in both directions.
pub async fn counted() -> anyhow::Result<()> {
    let wire = Counted::lay().await;
    println!("ready {}", wire.address);
    let mut orders = orders();
    while let Some(order) = orders.next_line().await? {
        match order.as_str() {
            "crossed" => println!("{}", wire.crossed()),
            _ => wire.lead_to(target(&order)?),
        }
    }
    Ok(())
}

/// `lead ADDRESS`, `cut` and `heal`; each is answered by `done`.
pub async fn switched() -> anyhow::Result<()> {
    let wire = Wire::lay().await;
    println!("ready {}", wire.address());
    let mut orders = orders();
    while let Some(order) = orders.next_line().await? {
        match order.as_str() {
            "cut" => wire.cut(),
            "heal" => wire.heal(),
            _ => wire.lead_to(Some(target(&order)?)),
        }
        println!("done");
    }
    Ok(())
}

fn orders() -> Lines<BufReader<Stdin>> {
    BufReader::new(stdin()).lines()
}

fn target(order: &str) -> anyhow::Result<SocketAddr> {
    match order.strip_prefix("lead ") {
        Some(address) => address.parse().context("an address"),
        None => bail!("an unknown order: {order}"),
    }
}
