//! Clients under TLS, by the library and the command line, and operators by certificate.

use std::net::SocketAddr;
use std::time::Duration;

use likewise::adapters::tls::{ClientTlsListener, TlsFiles};
use likewise::client::{Client, ClientBuilder, ClientError};
use likewise::seams::{Established, Incoming, IoFuture, Listener};
use likewise::wire::admin::RetireRegionRequest;
use likewise::wire::admin::admin_service_client::AdminServiceClient;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::certificates::{Authority, Wanted, node};
use crate::process::node::{PATIENCE, Setup};
use crate::served;
use crate::support::Machine;
use crate::tls;
use crate::trust::realm::Realm;

fn with_tls(realm: &Realm) -> Setup {
    let host = realm.authority.sign(&node("eu").uris([]));
    let (certificate, key) = host.write(&realm.path(""), "host");
    realm
        .plain("eu")
        .set("CLIENT__TLS__CERTIFICATE", certificate.display())
        .set("CLIENT__TLS__KEY", key.display())
}

fn trusting(authority: &Authority, endpoint: &str) -> ClientBuilder {
    Client::builder()
        .endpoints([endpoint])
        .authority(authority.pem())
        .deadline(Duration::from_secs(2))
}

#[tokio::test]
async fn the_library_speaks_tls_and_believes_only_its_authority() {
    let realm = Realm::new();
    let eu = with_tls(&realm).start().await;
    let port = eu.client_address.port();
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = format!("https://{host}:{port}");
        let client = trusting(&realm.authority, &endpoint).connect().await;
        let client = client.expect("connected");
        client.like("p", host).await.expect("taken");
    }
    let endpoint = format!("https://127.0.0.1:{port}");
    let other = Authority::new("another");
    let refused = trusting(&other, &endpoint).connect().await;
    let error = refused.err().expect("not believed");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(matches!(error, ClientError::Unreachable { .. }));

    let plain = Client::builder()
        .endpoints([format!("http://127.0.0.1:{port}")])
        .deadline(Duration::from_secs(1))
        .connect_lazy();
    let plain = plain.expect("an endpoint").like("p", "eve").await;
    assert!(plain.is_err(), "nothing is spoken in the clear");
    let client = trusting(&realm.authority, &endpoint).connect_lazy();
    let status = client.expect("an endpoint").status().await;
    assert_eq!(status.expect("a status").likers, 2);
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_name_is_not_believed() {
    let realm = Realm::new();
    let elsewhere = Wanted {
        hosts: vec!["likewise.example".to_owned()],
        addresses: vec![],
        ..node("eu")
    };
    let eu = with_tls(&realm);
    realm
        .authority
        .sign(&elsewhere)
        .write(&realm.path(""), "host");
    let eu = eu.start().await;
    let endpoint = format!("https://{}", eu.client_address);
    let refused = trusting(&realm.authority, &endpoint).connect().await;
    let error = refused.err().expect("not believed").to_string();
    assert!(error.contains("likewise.example"), "{error}");
}

async fn run(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_likewise"));
    for name in ["NODE", "CA", "CERTIFICATE", "KEY"] {
        command.env_remove(format!("LIKEWISE_{name}"));
    }
    let ended = command
        .args(args)
        .envs(environment.iter().copied())
        .output();
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    let output = ended.expect("it ends").expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn the_command_line_speaks_tls() {
    let realm = Realm::new();
    let eu = with_tls(&realm).start().await;
    let node = format!("https://{}", eu.client_address);
    let authority = realm.path("authority.pem").display().to_string();
    let (code, text) = run(
        &["like", "p", "ann", "--node", &node, "--ca", &authority],
        &[],
    )
    .await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ann now likes p (1 like)"), "{text}");
    let environment = [
        ("LIKEWISE_CA", authority.as_str()),
        ("LIKEWISE_NODE", node.as_str()),
    ];
    let (code, text) = run(&["status"], &environment).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("converged"), "{text}");

    let (code, text) = run(&["count", "p", "--node", &node], &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("an authority must be given"), "{text}");
    let (code, text) = run(&["count", "p", "--node", &node, "--ca", "/nowhere"], &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot read --ca /nowhere"), "{text}");
}

#[tokio::test]
async fn a_stalled_handshake_of_a_client_holds_up_no_other() {
    let realm = Realm::new();
    let eu = with_tls(&realm).start().await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let stream = tokio::net::TcpStream::connect(eu.client_address).await;
        stalled.push(stream.expect("a place"));
    }
    let endpoint = format!("https://{}", eu.client_address);
    let client = trusting(&realm.authority, &endpoint).connect().await;
    client
        .expect("connected")
        .like("p", "ann")
        .await
        .expect("taken");
    drop(stalled);
}

/// Gives every connection an address of another machine.
struct FromElsewhere(ClientTlsListener);

impl Listener for FromElsewhere {
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async {
            let incoming = self.0.accept().await?;
            let elsewhere: SocketAddr = "192.0.2.7:5".parse().expect("an address");
            let handshake = incoming.handshake;
            Ok(Incoming {
                address: Some(elsewhere),
                handshake: Box::pin(async move {
                    let mut established: Established = handshake.await?;
                    established.remote.address = Some(elsewhere);
                    Ok(established)
                }),
            })
        })
    }
}

#[tokio::test]
async fn operators_from_elsewhere_show_a_certificate() {
    let realm = Realm::new();
    let operators = Authority::new("operators");
    let host = realm.authority.sign(&node("eu"));
    let (certificate, key) = host.write(&realm.path(""), "host");
    let files = TlsFiles {
        section: "client.tls",
        certificate,
        key,
        authority: Some(operators.write(&realm.path(""), "operators")),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let listener = ClientTlsListener::load(listener, files).expect("sound files");
    let engine = Machine::new("eu", 1).start().await;
    let listener = Box::new(FromElsewhere(listener));
    let _serving = served::begin(&engine, listener, served::limits(), 10).await;

    let call = async |identity: Option<Identity>| {
        let mut trust = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(realm.authority.pem()));
        if let Some(identity) = identity {
            trust = trust.identity(identity);
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
        let endpoint = endpoint.tls_config(trust).expect("sound");
        let channel = endpoint.connect().await.expect("connected");
        let mut admin = AdminServiceClient::new(channel);
        let answer = admin.retire_region(RetireRegionRequest::default()).await;
        answer
            .map(drop)
            .expect_err("an empty region retires nothing")
            .code()
    };
    assert_eq!(call(None).await, Code::PermissionDenied);
    let operator = operators.sign(&node("eu").uris([]));
    let identity = Identity::from_pem(operator.pem(), operator.key_pem());
    let passed = call(Some(identity)).await;
    assert!(passed != Code::PermissionDenied, "{passed:?}");
    // A certificate of anybody else is not even let in.
    let refusal = tls::refusal(address, Some(&realm.authority.sign(&node("eu")))).await;
    assert!(refusal.contains("UnknownCA"), "{refusal}");
}
