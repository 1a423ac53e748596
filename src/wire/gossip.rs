//! Messages of the gossip between peers: generated types ↔ what they say.

use bytes::Bytes;

use crate::ids::{ClusterId, Replica};
use crate::limits::GOSSIP_DATAGRAM_BYTES_MAX;
use crate::replication::frame::BadFrame;
use crate::versions::Dialect;
use crate::wire::frames::{check_protocol, read_replica, write_replica};
use crate::wire::replication::gossip_message::Body;
use crate::wire::replication::{GossipHello, GossipMessage};

fn invalid(what: &'static str, why: &'static str) -> BadFrame {
    BadFrame::Invalid { what, why }
}

/// The first message of this node.
pub fn write_hello(dialect: &Dialect, cluster: &ClusterId, own: &Replica) -> GossipMessage {
    let hello = GossipHello {
        protocol_min: *dialect.protocol.start(),
        protocol_max: *dialect.protocol.end(),
        cluster: cluster.as_str().to_owned(),
        replica: Some(write_replica(own)),
    };
    GossipMessage {
        body: Some(Body::Hello(hello)),
    }
}

/// The first message of a peer: who it is, if it is of this cluster and speaks this protocol.
pub fn read_hello(
    message: Option<GossipMessage>,
    dialect: &Dialect,
    cluster: &ClusterId,
) -> Result<Replica, BadFrame> {
    let Some(Body::Hello(hello)) = message.and_then(|message| message.body) else {
        return Err(invalid("the first message of the gossip", "is no hello"));
    };
    check_protocol(dialect, hello.protocol_min..=hello.protocol_max)?;
    if hello.cluster != cluster.as_str() {
        return Err(invalid("the peer", "is of another cluster"));
    }
    read_replica(hello.replica)
}

pub fn write_datagram(datagram: Bytes) -> GossipMessage {
    GossipMessage {
        body: Some(Body::Datagram(datagram)),
    }
}

/// Any further message. What is in it is for the membership to check.
pub fn read_datagram(message: Option<GossipMessage>) -> Result<Bytes, BadFrame> {
    let Some(Body::Datagram(datagram)) = message.and_then(|message| message.body) else {
        return Err(invalid("a message of the gossip", "is no datagram"));
    };
    let (found, max) = (datagram.len(), GOSSIP_DATAGRAM_BYTES_MAX);
    let what = "a datagram of the gossip, in bytes,";
    match found > max {
        true => Err(BadFrame::OverLimit { what, found, max }),
        false => Ok(datagram),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region};

    fn cluster(name: &str) -> ClusterId {
        ClusterId::new(name).expect("valid")
    }

    fn own() -> Replica {
        Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(7),
        }
    }

    #[test]
    fn a_hello_of_this_cluster_names_its_sender() {
        let hello = write_hello(&Dialect::default(), &cluster("test"), &own());
        assert_eq!(
            read_hello(Some(hello.clone()), &Dialect::default(), &cluster("test")),
            Ok(own())
        );
        assert!(read_hello(Some(hello), &Dialect::default(), &cluster("other")).is_err());
        let datagram = write_datagram(Bytes::from_static(b"x"));
        assert!(read_hello(Some(datagram), &Dialect::default(), &cluster("test")).is_err());
        assert!(read_hello(None, &Dialect::default(), &cluster("test")).is_err());
    }

    #[test]
    fn a_hello_of_another_protocol_is_refused() {
        let mut hello = write_hello(&Dialect::default(), &cluster("test"), &own());
        let Some(Body::Hello(body)) = &mut hello.body else {
            panic!("a hello");
        };
        let newest = *Dialect::default().protocol.end();
        (body.protocol_min, body.protocol_max) = (newest + 1, newest + 2);
        let refused = read_hello(Some(hello), &Dialect::default(), &cluster("test"));
        assert!(matches!(refused, Err(BadFrame::Version { .. })));
    }

    #[test]
    fn datagrams_are_bounded() {
        let read = |len| read_datagram(Some(write_datagram(vec![0; len].into())));
        assert!(read(GOSSIP_DATAGRAM_BYTES_MAX).is_ok());
        assert!(read(GOSSIP_DATAGRAM_BYTES_MAX + 1).is_err());
        assert!(read_datagram(Some(GossipMessage { body: None })).is_err());
    }
}
