//! How a client is described: where the nodes are, how long it tries, and where it may try again.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::memory::Memory;
use super::retry::Endpoints;
use super::trust::Trust;
use super::{Client, ClientError};
use crate::causes::innermost;

/// Where a write whose outcome is unknown may be tried again.
///
/// A request id is known to the node that took it, not to other regions. A like or unlike that happens
/// in two regions has the same effect as once; an add counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryElsewhere {
    /// At the same node only.
    Never,
    /// Likes and unlikes at any node, adds and batches with adds at the same node only.
    #[default]
    LikesOnly,
    /// Everything at any node: adds may count twice.
    Always,
}

/// How a client goes about its calls.
#[derive(Debug, Clone)]
pub struct Settings {
    pub deadline: Duration,
    pub attempt_timeout: Duration,
    pub retry_elsewhere: RetryElsewhere,
}

const DEADLINE: Duration = Duration::from_secs(30);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Describes a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    token: String,
    trust: Trust,
    settings: Settings,
    is_gathering: bool,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            token: String::new(),
            trust: Trust::default(),
            settings: Settings {
                deadline: DEADLINE,
                attempt_timeout: ATTEMPT_TIMEOUT,
                retry_elsewhere: RetryElsewhere::default(),
            },
            is_gathering: false,
        }
    }
}

impl ClientBuilder {
    /// The nodes as `http://host:port` or `https://host:port`, the nearest first; the others are gone to
    /// when it fails.
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// What an earlier client has seen. Nothing by default.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Whose certificates nodes with `https` must show, for the names of their hosts: PEM. Needed for these.
    pub fn authority(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust.set_authority(pem.into());
        self
    }

    /// A certificate and its key, to prove to be an operator to nodes with `https`: PEM.
    pub fn certificate(mut self, pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.trust.set_certificate(pem.into(), key_pem.into());
        self
    }

    /// How long a call is tried in all. 30 seconds by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// How long one attempt may take, besides what a read asks the node to wait. 5 seconds by default.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// Where a write whose outcome is unknown may be tried again. [`RetryElsewhere::LikesOnly`] by default.
    pub fn retry_elsewhere(mut self, elsewhere: RetryElsewhere) -> Self {
        self.settings.retry_elsewhere = elsewhere;
        self
    }

    /// Lets likes and adds that are called at the same time go out together, as batches on a stream: many times as many
    /// a second, with the same promises. A call waits for others no longer than it takes to answer one of the two batches
    /// that may be under way; one that finds fewer leaves at once. While no node answers, calls that came after those of the
    /// batch being tried wait for their turn, and may be told later than their deadline. Off by default: a client that
    /// calls one at a time gains nothing, and some proxies hold streams up.
    pub fn gather_calls(mut self) -> Self {
        self.is_gathering = true;
        self
    }

    /// The client, after one of its nodes could be connected to.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let described = self.described()?;
        let mut last = ClientError::NoEndpoint;
        for (name, endpoint) in &described {
            match endpoint.connect().await {
                Ok(_) => return Ok(self.client(&described)),
                Err(error) => {
                    last = ClientError::Unreachable {
                        endpoint: name.clone(),
                        problem: innermost(&error).to_string(),
                    };
                }
            }
        }
        Err(last)
    }

    /// The client, before anything is connected to; calls connect as they go.
    pub fn connect_lazy(self) -> Result<Client, ClientError> {
        let described = self.described()?;
        Ok(self.client(&described))
    }

    fn client(self, described: &[(String, Endpoint)]) -> Client {
        let channel = |(name, endpoint): &(String, Endpoint)| -> (String, Channel) {
            (name.clone(), endpoint.connect_lazy())
        };
        Client {
            endpoints: Arc::new(Endpoints::new(described.iter().map(channel).collect())),
            settings: Arc::new(self.settings),
            memory: Arc::new(Memory::beginning_with(self.token)),
            gathering: self.is_gathering.then(Arc::default),
        }
    }

    fn described(&self) -> Result<Vec<(String, Endpoint)>, ClientError> {
        if self.endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        let tls = self.trust.tls()?;
        let described = self.endpoints.iter();
        described.map(|text| describe(text, tls.as_ref())).collect()
    }
}

fn describe(text: &str, tls: Option<&ClientTlsConfig>) -> Result<(String, Endpoint), ClientError> {
    let bad = |problem: String| ClientError::BadEndpoint {
        endpoint: text.to_owned(),
        problem,
    };
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let endpoint =
        Endpoint::from_shared(full).map_err(|error| bad(innermost(&error).to_string()))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(bad("it has no port".to_owned()));
    }
    let endpoint = match (endpoint.uri().scheme_str(), tls) {
        (Some("http"), _) => endpoint,
        (Some("https"), Some(tls)) => endpoint
            .tls_config(tls.clone().timeout(CONNECT_TIMEOUT))
            .map_err(|error| bad(innermost(&error).to_string()))?,
        (Some("https"), None) => {
            let problem = "an authority must be given to tell the node's certificate by";
            return Err(bad(problem.to_owned()));
        }
        _ => return Err(bad("it is neither http nor https".to_owned())),
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    Ok((text.to_owned(), endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_need_a_host_and_a_port() {
        let bad = [
            "",
            "http://",
            "http://localhost",
            "http://a b:1",
            "ftp://localhost:1",
        ];
        for bad in bad {
            assert!(describe(bad, None).is_err(), "{bad:?}");
        }
        for good in ["http://localhost:7400", "127.0.0.1:1", "http://[::1]:1"] {
            assert!(describe(good, None).is_ok(), "{good:?}");
        }
    }

    #[tokio::test]
    async fn https_needs_an_authority_that_can_be_read() {
        let lazy = |builder: ClientBuilder| {
            let connected = builder.endpoints(["https://localhost:1"]).connect_lazy();
            connected.err().expect("refused").to_string()
        };
        let none = lazy(Client::builder());
        assert!(none.contains("an authority must be given"), "{none}");
        let garbled = lazy(Client::builder().authority("secret"));
        assert_eq!(
            garbled,
            "the authority holds no certificate in the PEM form"
        );
        let garbled = lazy(Client::builder().certificate("secret", "secret"));
        assert_eq!(
            garbled,
            "the certificate holds no certificate in the PEM form"
        );
        let builder = Client::builder().certificate("secret", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_client_without_endpoints_is_refused() {
        let error = Client::builder().connect_lazy().err();
        assert!(matches!(error, Some(ClientError::NoEndpoint)));
    }
}
