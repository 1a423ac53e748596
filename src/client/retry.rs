//! One call, tried until it is answered, refused for good, or out of time.
//!
//! What may be done next follows from what is known: after "nothing happened" any node may be asked,
//! after "outcome unknown" only those that the call allows.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::builder::Settings;
use super::error::Failure;
use super::{Client, ClientError, Reason, Refusal};

const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The nodes, and which of them answered last.
pub struct Endpoints {
    all: Vec<(String, Channel)>,
    /// A hint only: calls may move it past one another.
    preferred: AtomicUsize,
}

impl Endpoints {
    /// At least one.
    pub fn new(all: Vec<(String, Channel)>) -> Self {
        assert!(!all.is_empty(), "a client has an endpoint");
        let preferred = AtomicUsize::new(0);
        Self { all, preferred }
    }

    pub fn name(&self, index: usize) -> &str {
        &self.all[index].0
    }

    fn after(&self, index: usize) -> usize {
        (index + 1) % self.all.len()
    }
}

/// What a call may do after an attempt whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It changes nothing: ask anyone.
    Read,
    /// Ask any node again with the same request id.
    WriteAnywhere,
    /// Ask the same node again with the same request id.
    WriteHere,
}

/// What one try is given.
pub struct Attempt {
    pub channel: Channel,
    pub token: String,
}

impl Client {
    /// Runs the call and remembers nothing; the caller knows where its answer's token is.
    /// `extra` is what the node was asked to wait, beyond which an attempt has its usual time.
    pub async fn run<T, F>(
        &self,
        call: Call,
        request_id: &str,
        extra: Duration,
        attempt: impl FnMut(Attempt) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begin = self.begin();
        let answered = self.run_from(begin, call, request_id, extra, attempt).await;
        answered.map(|(answer, _)| answer)
    }

    /// At the node that answered last.
    pub fn begin(&self) -> Begin {
        Begin {
            at: self.endpoints.preferred.load(Ordering::Relaxed),
            is_unknown: false,
        }
    }

    /// As [`Self::run`], from where an earlier try has ended. Also says which node answered.
    pub async fn run_from<T, F>(
        &self,
        begin: Begin,
        call: Call,
        request_id: &str,
        extra: Duration,
        mut attempt: impl FnMut(Attempt) -> F,
    ) -> Result<(T, usize), ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut course = Course::new(self, begin, call, request_id);
        loop {
            let (_, channel) = &self.endpoints.all[course.at];
            let once = attempt(Attempt {
                channel: channel.clone(),
                token: self.memory.token(),
            });
            let limit = (self.settings.attempt_timeout + extra).min(course.left());
            let failure = match tokio::time::timeout(limit, once).await {
                Ok(Ok(response)) => {
                    self.endpoints.preferred.store(course.at, Ordering::Relaxed);
                    return Ok((response.into_inner(), course.at));
                }
                Ok(Err(status)) => Failure::of(&status),
                Err(_) => Failure::Unknown {
                    problem: format!("no answer within {limit:?}"),
                    retry_after: None,
                },
            };
            let pause = course.handle_failure(failure)?;
            tokio::time::sleep(pause).await;
        }
    }
}

/// Where a call is begun.
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// The node's place among the endpoints.
    pub at: usize,
    /// Whether it was tried there before, and may have been carried out.
    pub is_unknown: bool,
}

/// Where a call stands between its attempts.
struct Course<'a> {
    endpoints: &'a Endpoints,
    request_id: &'a str,
    call: Call,
    at: usize,
    until: Instant,
    attempts: u32,
    /// Whether some attempt may have been carried out.
    unknown: bool,
}

impl<'a> Course<'a> {
    fn new(client: &'a Client, begin: Begin, call: Call, request_id: &'a str) -> Self {
        let Settings { deadline, .. } = *client.settings;
        Self {
            endpoints: &client.endpoints,
            request_id,
            call,
            at: begin.at,
            until: Instant::now() + deadline,
            attempts: 0,
            unknown: begin.is_unknown,
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The pause before the next attempt, or what is given up with.
    fn handle_failure(&mut self, failure: Failure) -> Result<Duration, ClientError> {
        self.attempts += 1;
        let (problem, least) = match failure {
            Failure::Refused(refusal) if may_pass(refusal.reason) => {
                let least = refusal.retry_after.unwrap_or_default();
                (Problem::Refused(refusal), least)
            }
            Failure::Refused(refusal) => return Err(self.given_up(Problem::Refused(refusal))),
            Failure::NotReached(problem) => (Problem::NotReached(problem), Duration::ZERO),
            Failure::Unknown {
                problem,
                retry_after,
            } => {
                self.unknown |= self.call != Call::Read;
                (Problem::Unknown(problem), retry_after.unwrap_or_default())
            }
            Failure::Unexpected { code, message } => {
                let endpoint = self.endpoint();
                return Err(ClientError::Unexpected {
                    endpoint,
                    code,
                    message,
                });
            }
        };
        let pause = backoff(self.attempts).max(least);
        if pause >= self.left() {
            return Err(self.given_up(problem));
        }
        if !(self.unknown && self.call == Call::WriteHere) {
            self.at = self.endpoints.after(self.at);
        }
        Ok(pause)
    }

    fn given_up(&self, problem: Problem) -> ClientError {
        let endpoint = self.endpoint();
        match problem {
            problem if self.unknown => ClientError::OutcomeUnknown {
                endpoint,
                request_id: self.request_id.to_owned(),
                attempts: self.attempts,
                problem: problem.into_text(),
            },
            Problem::Refused(refusal) => ClientError::Refused(refusal),
            problem => ClientError::Unreachable {
                endpoint,
                problem: problem.into_text(),
            },
        }
    }

    fn endpoint(&self) -> String {
        self.endpoints.name(self.at).to_owned()
    }
}

enum Problem {
    Refused(Refusal),
    NotReached(String),
    Unknown(String),
}

impl Problem {
    fn into_text(self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::NotReached(text) | Self::Unknown(text) => text,
        }
    }
}

/// Refusals that another node, or the same one a little later, need not give.
pub fn may_pass(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Overloaded
            | Reason::DiskFull
            | Reason::LogPoisoned
            | Reason::Rebuilding
            | Reason::Stopping
    )
}

/// Doubled at each attempt up to a second, of which the second half is by chance, so that clients that
/// failed together do not come back together.
pub fn backoff(attempts: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let longest = doubled.min(BACKOFF_MAX);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoints: &[&str]) -> Client {
        let endpoints = endpoints.iter().copied();
        Client::builder()
            .endpoints(endpoints)
            .connect_lazy()
            .unwrap()
    }

    fn unknown() -> Failure {
        Failure::Unknown {
            problem: "broken".to_owned(),
            retry_after: None,
        }
    }

    fn refused(reason: Reason, retry_after: Option<Duration>) -> Failure {
        Failure::Refused(Refusal {
            reason,
            code: tonic::Code::Unavailable,
            message: "words".to_owned(),
            fields: Vec::new(),
            retry_after,
        })
    }

    #[tokio::test]
    async fn an_add_of_unknown_outcome_stays_at_its_node() {
        let client = client(&["a:1", "b:1"]);
        let mut course = Course::new(&client, client.begin(), Call::WriteHere, "id");
        course
            .handle_failure(Failure::NotReached("refused".to_owned()))
            .unwrap();
        assert_eq!(
            course.at, 1,
            "nothing was sent, so another node may be asked"
        );
        course.handle_failure(unknown()).unwrap();
        course
            .handle_failure(refused(Reason::Stopping, None))
            .unwrap();
        assert_eq!(course.at, 1);
    }

    #[tokio::test]
    async fn a_like_of_unknown_outcome_goes_to_the_next_node() {
        let client = client(&["a:1", "b:1"]);
        let mut course = Course::new(&client, client.begin(), Call::WriteAnywhere, "id");
        course.handle_failure(unknown()).unwrap();
        assert_eq!(course.at, 1);
    }

    #[tokio::test]
    async fn what_was_once_unknown_stays_unknown_at_the_end() {
        let client = client(&["a:1"]);
        let mut course = Course::new(&client, client.begin(), Call::WriteAnywhere, "id");
        course.handle_failure(unknown()).unwrap();
        course.until = Instant::now();
        let error = course
            .handle_failure(refused(Reason::Overloaded, None))
            .unwrap_err();
        assert!(error.is_outcome_unknown(), "{error}");
    }

    #[tokio::test]
    async fn a_node_that_names_a_delay_is_given_it() {
        let client = client(&["a:1"]);
        let delay = Duration::from_secs(3);
        let mut course = Course::new(&client, client.begin(), Call::Read, "");
        let pause = course.handle_failure(refused(Reason::Overloaded, Some(delay)));
        assert!(pause.unwrap() >= delay);
        let refusal = course.handle_failure(refused(Reason::InvalidField, None));
        assert_eq!(refusal.unwrap_err().reason(), Some(Reason::InvalidField));
    }

    #[test]
    fn pauses_grow_to_a_second_and_no_further() {
        for attempts in 1..100 {
            let pause = backoff(attempts);
            assert!(pause >= BACKOFF_MIN / 2 && pause <= BACKOFF_MAX);
        }
        assert!(backoff(50) >= BACKOFF_MAX / 2);
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let client = Client::builder()
            .endpoints([address])
            .deadline(Duration::from_millis(200))
            .connect_lazy()
            .unwrap();
        let error = client.like("p", "u").await.unwrap_err();
        assert!(
            matches!(error, ClientError::Unreachable { .. }),
            "{error:?}"
        );
    }
}
