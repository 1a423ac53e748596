//! Who may speak to whom: certificates of peers, clients and operators, sound and not.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/process/mod.rs"]
mod process;
#[path = "support/served.rs"]
mod served;
mod support;
#[path = "support/tls.rs"]
mod tls;

mod trust {
    mod accepting;
    mod clients;
    mod dialling;
    mod realm;
    mod renewal;
    mod starting;
}
