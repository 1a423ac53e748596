//! Lets connections in: so many at once, each after its handshake, which holds up no other.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::preface::Admitted;
use super::transport::{Established, Incoming, Listener};
use crate::limits::{ACCEPT_PAUSE, HANDSHAKE_MAX, HANDSHAKES_MAX};

/// Told of each connection whose handshake failed.
pub type Refused = Box<dyn Fn(Option<SocketAddr>, &io::Error) + Send>;

/// The listener's connections, as they become ready for use. At most `max` are open at once; a further one
/// waits in the system's queue. Must be polled within a runtime.
pub fn admitted(
    listener: Box<dyn Listener>,
    max: usize,
    refused: Refused,
) -> impl Stream<Item = io::Result<Admitted>> + Send {
    let admission = Admission {
        listener,
        places: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
        handshakes: FuturesUnordered::new(),
        under_way: BTreeMap::new(),
        begun: 0,
        refused,
    };
    stream::unfold(admission, |mut admission| async {
        Some((Ok(admission.next().await), admission))
    })
}

struct Admission {
    listener: Box<dyn Listener>,
    places: Arc<Semaphore>,
    handshakes: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Gives a handshake up, by its number. At most [`HANDSHAKES_MAX`]: one more ends the oldest, so that
    /// whoever stalls is in nobody's way.
    under_way: BTreeMap<u64, CancellationToken>,
    begun: u64,
    refused: Refused,
}

/// A handshake that is over.
struct Ended {
    number: u64,
    address: Option<SocketAddr>,
    outcome: io::Result<Established>,
    place: OwnedSemaphorePermit,
}

impl Admission {
    async fn next(&mut self) -> Admitted {
        loop {
            // Who is ready goes before who is new.
            tokio::select! {
                biased;
                Some(ended) = self.handshakes.next() => {
                    self.under_way.remove(&ended.number);
                    match ended.outcome {
                        Ok(established) => return Admitted::new(established, ended.place),
                        Err(error) => (self.refused)(ended.address, &error),
                    }
                }
                (place, incoming) = accept(self.listener.as_ref(), &self.places) => {
                    self.begin(place, incoming);
                }
            }
        }
    }

    fn begin(&mut self, place: OwnedSemaphorePermit, incoming: Incoming) {
        if self.under_way.len() >= HANDSHAKES_MAX
            && let Some((_, oldest)) = self.under_way.pop_first()
        {
            oldest.cancel();
        }
        self.begun += 1;
        let (number, give_up) = (self.begun, CancellationToken::new());
        self.under_way.insert(number, give_up.clone());
        self.handshakes.push(Box::pin(async move {
            let handshake = timeout(HANDSHAKE_MAX, incoming.handshake);
            let outcome = match give_up.run_until_cancelled(handshake).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_)) => Err(late(format!("within {HANDSHAKE_MAX:?}"))),
                None => Err(late(format!("before {HANDSHAKES_MAX} others began"))),
            };
            Ended {
                number,
                address: incoming.address,
                outcome,
                place,
            }
        }));
    }
}

fn late(when: String) -> io::Error {
    let message = format!("the handshake was not over {when}");
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// The next connection, once there is a place for it. One that has gone again, or a lack of file
/// descriptors, ends nothing.
async fn accept(
    listener: &dyn Listener,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, Incoming) {
    let place = places.clone().acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    let gone = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::InvalidInput,
    ];
    loop {
        match listener.accept().await {
            Ok(incoming) => return (place, incoming),
            Err(error) if gone.contains(&error.kind()) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection could be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use parking_lot::Mutex;
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;
    use crate::seams::IoFuture;

    /// Hands out what is sent; a flag says whether the handshake ever ends.
    struct Scripted(tokio::sync::Mutex<mpsc::Receiver<(DuplexStream, Handshake)>>);

    #[derive(Clone, Copy)]
    enum Handshake {
        Ready,
        Stalled,
    }

    impl Listener for Scripted {
        fn accept(&self) -> IoFuture<'_, Incoming> {
            Box::pin(async {
                let next = self.0.lock().await.recv().await;
                let Some((stream, handshake)) = next else {
                    return pending().await;
                };
                let established = Established::anonymous(stream);
                Ok(Incoming {
                    address: None,
                    handshake: match handshake {
                        Handshake::Ready => Box::pin(ready(Ok(established))),
                        Handshake::Stalled => Box::pin(async {
                            let _held = established;
                            pending().await
                        }),
                    },
                })
            })
        }
    }

    type Problems = Arc<Mutex<Vec<String>>>;

    fn listening(
        max: usize,
    ) -> (
        mpsc::Sender<(DuplexStream, Handshake)>,
        impl Stream<Item = io::Result<Admitted>>,
        Problems,
    ) {
        let (connections, listened) = mpsc::channel(HANDSHAKES_MAX * 2);
        let problems = Problems::default();
        let noted = problems.clone();
        let refused = move |_, error: &io::Error| noted.lock().push(error.to_string());
        let listener = Box::new(Scripted(tokio::sync::Mutex::new(listened)));
        let admitted = admitted(listener, max, Box::new(refused));
        (connections, admitted, problems)
    }

    fn stream() -> DuplexStream {
        duplex(64).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_handshake_holds_up_no_other_and_is_given_up() {
        let (connections, admitted, problems) = listening(8);
        let mut admitted = pin!(admitted);
        for handshake in [Handshake::Stalled, Handshake::Ready] {
            let sent = connections.send((stream(), handshake)).await;
            sent.expect("room");
        }
        let first = timeout(HANDSHAKE_MAX / 2, admitted.next()).await;
        assert!(matches!(first, Ok(Some(Ok(_)))));
        assert!(timeout(HANDSHAKE_MAX * 2, admitted.next()).await.is_err());
        assert_eq!(
            *problems.lock(),
            ["the handshake was not over within 5s".to_owned()]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_handshakes_make_room_for_new_ones() {
        let (connections, admitted, problems) = listening(HANDSHAKES_MAX * 4);
        let mut admitted = pin!(admitted);
        let stalled = (0..HANDSHAKES_MAX).map(|_| Handshake::Stalled);
        for handshake in stalled.chain([Handshake::Ready]) {
            let sent = connections.send((stream(), handshake)).await;
            sent.expect("room");
        }
        let first = timeout(HANDSHAKE_MAX / 2, admitted.next()).await;
        assert!(matches!(first, Ok(Some(Ok(_)))));
        let problems = problems.lock();
        assert!(problems.len() <= 1, "{problems:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_let_in_than_have_places() {
        let (connections, admitted, _problems) = listening(1);
        let mut admitted = pin!(admitted);
        for _ in 0..2 {
            let sent = connections.send((stream(), Handshake::Ready)).await;
            sent.expect("room");
        }
        let first = admitted.next().await;
        assert!(timeout(HANDSHAKE_MAX, admitted.next()).await.is_err());
        drop(first);
        assert!(timeout(HANDSHAKE_MAX, admitted.next()).await.is_ok());
    }
}
