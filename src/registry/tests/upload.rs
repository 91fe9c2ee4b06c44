//! Uploads that are cut, too large, refused.

use super::*;

/// What a registry keeps of uploads.
#[derive(Default)]
struct Uploads {
    bytes: Vec<u8>,
    done: Vec<String>,
}

fn uploading(cut_at: usize, piece: usize) -> (Server, Arc<Mutex<Uploads>>) {
    let uploads: Arc<Mutex<Uploads>> = Arc::default();
    let kept = uploads.clone();
    let server = Server::start_reading(cut_at, move |r| {
        let mut kept = kept.lock().unwrap();
        let at = "/v2/a/b/blobs/uploads/1?state=x";
        match r.method.as_str() {
            "POST" if r.path.contains("mount=") && r.path.ends_with("from=has/it") => Reply::new(201),
            "POST" if r.path.contains("from=secret") => {
                Reply::new(401).with("www-authenticate", "Basic realm=x")
            }
            "POST" => Reply::new(202).with("location", at).with("oci-chunk-min-length", "1100000"),
            "PATCH" if r.length > piece => Reply::new(413),
            "PATCH" => {
                kept.bytes.extend(&r.body);
                Reply::new(202)
                    .with("location", "1?state=y")
                    .with("range", format!("0-{}", kept.bytes.len() - 1))
            }
            "GET" => {
                let range = format!("0-{}", kept.bytes.len().saturating_sub(1));
                Reply::new(204).with("location", at).with("range", range)
            }
            "PUT" => {
                kept.bytes.extend(&r.body);
                let digest = Digest::of(&kept.bytes).to_string();
                if !r.path.ends_with(&digest) {
                    return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#);
                }
                kept.done.push(digest);
                kept.bytes.clear();
                Reply::new(201)
            }
            _ => Reply::new(404),
        }
    });
    (server, uploads)
}

fn upload(server: &Server, digest: &Digest, bytes: &[u8], size: u64) -> Result<Vec<u64>> {
    let client = client();
    let repository = client.repository(&reference(server), Action::Push)?;
    let mut opened = Vec::new();
    let mut last = 0;
    repository.upload(
        digest,
        size,
        &mut |from| {
            opened.push(from);
            Ok(Box::new(std::io::Cursor::new(bytes[from as usize..].to_vec())))
        },
        &mut |n| last = n,
    )?;
    assert_eq!(last, size);
    Ok(opened)
}

#[test]
fn uploads_arrive_and_go_on_where_they_were_cut() {
    let large: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&large);
    let whole = |server: &Server, bytes: &[u8]| upload(server, &Digest::of(bytes), bytes, bytes.len() as u64);
    let (server, kept) = uploading(usize::MAX, usize::MAX);
    assert_eq!(whole(&server, &large).unwrap(), [0]);
    assert_eq!(whole(&server, b"small").unwrap(), [0]);
    assert_eq!(whole(&server, b"").unwrap(), [0]);
    assert_eq!(kept.lock().unwrap().done.len(), 3);
    let methods: Vec<String> = server.seen().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "PUT", "POST", "PUT", "POST", "PUT"]);
    // Cut after 1,000,000 bytes.
    let (server, kept) = uploading(1_000_000, usize::MAX);
    assert_eq!(whole(&server, &large).unwrap(), [0, 1_000_000]);
    assert_eq!(kept.lock().unwrap().done, [digest.to_string()]);
    let resumed = server.seen().into_iter().filter(|r| r.method == "PATCH").nth(1).unwrap();
    assert_eq!(resumed.header("content-range"), Some("1000000-1599999"));
    // Too large for the registry.
    let (server, kept) = uploading(usize::MAX, 1_200_000);
    assert_eq!(whole(&server, &large).unwrap(), [0, 0, 1_100_000]);
    assert_eq!(kept.lock().unwrap().done, [digest.to_string()]);
}

#[test]
fn uploads_that_cannot_succeed_end() {
    let (server, _) = uploading(usize::MAX, usize::MAX);
    let wrong = Digest::of(b"wrong");
    let error = text(&upload(&server, &wrong, b"small", 5).unwrap_err());
    assert!(error.contains("digest_invalid: no") && error.contains(&wrong.to_string()), "{error}");
    // Our own end is at fault: nothing is tried again.
    let error = text(&upload(&server, &wrong, &[0; 500_000], 600_000).unwrap_err());
    assert!(error.contains("cannot read it: it ends 100000 bytes too early"), "{error}");
    assert!(upload(&server, &wrong, b"12345", 6).is_err());
}

#[test]
fn a_blob_is_mounted_or_not() {
    let (server, _) = uploading(usize::MAX, usize::MAX);
    let client = client();
    let repository = client.repository(&reference(&server), Action::Push).unwrap();
    let digest = Digest::of(b"x");
    assert!(repository.mount(&digest, "has/it").unwrap());
    assert!(!repository.mount(&digest, "secret").unwrap());
    assert!(!repository.mount(&digest, "has/not").unwrap());
    // The upload that the last one began is used.
    repository.upload(&digest, 1, &mut |_| Ok(Box::new(&b"x"[..])), &mut |_| {}).unwrap();
    let posts = server.seen().into_iter().filter(|r| r.method == "POST").count();
    assert_eq!(posts, 3);
}

#[test]
fn an_upload_location_elsewhere_gets_no_credentials() {
    let elsewhere = Server::start(|_| Reply::new(201));
    let to = elsewhere.authority.clone();
    let server = Server::start(move |r| match r.header("authorization") {
        Some(_) => Reply::new(202).with("location", format!("http://{to}/u")),
        None => Reply::new(401).with("www-authenticate", "Basic realm=x"),
    });
    let client = client_as("me", "secret");
    let repository = client.repository(&reference(&server), Action::Push).unwrap();
    repository.upload(&Digest::of(b"x"), 1, &mut |_| Ok(Box::new(&b"x"[..])), &mut |_| {}).unwrap();
    assert_eq!(elsewhere.seen()[0].header("authorization"), None);
}
