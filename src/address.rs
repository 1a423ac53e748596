//! Where a node is found: a host name or an address, and a port. Names are resolved at each dial, so nothing is
//! resolved here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// `host:port`; the host is a name or an address, IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// Why a text is no address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("has no port; write host:port")]
    NoPort,
    #[error("has no port that can be dialled; give 1 to 65535")]
    BadPort,
    #[error("has no host that can be dialled; give a name, an IPv4 address or [an IPv6 address]")]
    BadHost,
}

impl PeerAddress {
    /// The host, IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a listener that others reach under it; none if it stands for all addresses of its machine.
    pub fn of_listener(listener: SocketAddr) -> Option<Self> {
        let host = match listener.ip() {
            ip if ip.is_unspecified() => return None,
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = listener.port();
        (port != 0).then_some(Self { host, port })
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let port = match port.parse() {
            Ok(0) | Err(_) => return Err(AddressError::BadPort),
            Ok(port) => port,
        };
        if !host_is_valid(host) {
            return Err(AddressError::BadHost);
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

fn host_is_valid(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.chars().all(plain)
}

/// Bytes of a host name, by RFC 1035.
const HOST_BYTES_MAX: usize = 253;

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_names_or_numbers_with_a_port() {
        for good in ["127.0.0.1:7401", "eu.example.org:1", "[::1]:7401"] {
            assert_eq!(good.parse::<PeerAddress>().unwrap().to_string(), good);
        }
        let cases = [
            ("eu", AddressError::NoPort),
            ("eu:0", AddressError::BadPort),
            ("eu:70000", AddressError::BadPort),
            (":7401", AddressError::BadHost),
            ("::1:7401", AddressError::BadHost),
            ("http://eu:7401", AddressError::BadHost),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<PeerAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_listener_of_all_addresses_says_nothing_of_where_it_is_reached() {
        let of = |listener: &str| {
            let listener = PeerAddress::of_listener(listener.parse().unwrap());
            listener.map(|address| address.to_string())
        };
        assert_eq!(of("127.0.0.1:7401").as_deref(), Some("127.0.0.1:7401"));
        assert_eq!(of("[::1]:7401").as_deref(), Some("[::1]:7401"));
        assert_eq!(of("0.0.0.0:7401"), None);
        assert_eq!(of("[::]:7401"), None);
    }
}
