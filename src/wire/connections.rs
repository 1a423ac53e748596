//! Accepted connections as tonic's server takes them: each request can tell who is at the other end.

use tonic::Request;
use tonic::transport::server::Connected;

use crate::seams::Remote;
use crate::seams::preface::Admitted;

impl Connected for Admitted {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

/// Who sent the request.
pub fn remote<T>(request: &Request<T>) -> Remote {
    let remote = request.extensions().get::<Remote>();
    remote.cloned().unwrap_or_default()
}
