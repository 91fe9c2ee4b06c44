//! The protocol against a server that misbehaves on purpose.

mod passwords;
mod pull;
mod upload;

use std::io::Read;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Result;

use super::*;
use crate::error::NotFound;
use crate::host::Ids;
use crate::oci::Digest;
use server::Reply;
use server::Request;
use server::Server;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn host() -> Host {
    Host {
        uid: 0,
        gid: 0,
        user: None,
        home: Some("/nonexistent".into()),
        data: "/nonexistent".into(),
        env: Default::default(),
        ids: Ids::Root,
        executable_is_out_of_reach: false,
    }
}

fn client() -> Client {
    Client::new(&host(), Options::default()).unwrap()
}

fn client_as(user: &str, password: &str) -> Client {
    let credentials = Some(Credentials::Basic { user: user.into(), password: password.into() });
    Client::new(&host(), Options { credentials, ..Options::default() }).unwrap()
}

fn reference(server: &Server) -> Reference {
    format!("{}/a/b", server.authority).parse().unwrap()
}

fn text(error: &anyhow::Error) -> String {
    crate::error::report(error)
}

fn read_all(mut stream: BlobStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

fn manifest_of(server: &Server, client: &Client) -> Result<Manifest> {
    client.repository(&reference(server), Action::Pull).unwrap().manifest("latest")
}
