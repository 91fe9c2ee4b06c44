//! A small registry that misbehaves by a script: for each request the test says what is done, the default being what the
//! distribution specification asks for. It writes down what it was asked and what it sent.
//!
//! `Hostile` is the server and its record, `Deed` what is done to one request; what a well-behaved registry answers is
//! in `honest_registry`, how bytes go over the wire (and how they do not) in `hostile_wire`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::honest_registry::Content;
use crate::hostile_wire;
use crate::image_made::{Blob, Image};
use crate::wait;

/// What a request was.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// How many requests of this method and path came before.
    pub nth: usize,
    /// How many requests of any kind came before.
    pub index: usize,
}

impl Request {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// GET of a blob.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha")
    }

    /// GET of a manifest.
    pub fn is_manifest(&self) -> bool {
        self.method == "GET" && self.path.contains("/manifests/")
    }

    /// GET of this blob.
    pub fn is_of(&self, blob: &Blob) -> bool {
        self.is_blob() && self.path.ends_with(&blob.digest)
    }
}

/// What is done to one request: as is right, but for what is set.
#[derive(Debug, Clone, Default)]
pub struct Deed {
    pub status: Option<u16>,
    /// Headers, in place of those of the same name; an empty value leaves it out.
    pub headers: Vec<(String, String)>,
    pub body: Option<Body>,
    /// One bit of the body's byte at this place is another.
    pub flip: Option<u64>,
    /// What Content-Length says is off by this much.
    pub length_off: i64,
    pub ignore_range: bool,
    /// The connection is closed after so many bytes of the body; before the answer where it is `Some(None)`.
    pub cut: Option<Option<u64>>,
    /// The connection is closed after so many bytes of the request's body.
    pub cut_request: Option<u64>,
    /// The body comes in pieces of so many bytes, with a pause before each.
    pub drip: Option<(usize, Duration)>,
    /// After so many bytes of the body, nothing until the gate opens.
    pub gate: Option<(u64, Gate)>,
}

/// A body in place of the right one.
#[derive(Debug, Clone)]
pub enum Body {
    Bytes(Arc<[u8]>),
    /// These bytes, and then blanks up to this length.
    Padded(&'static str, u64),
}

/// Closed until the test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits, but not for ever: a test that failed opens no gate.
    pub fn wait(&self) {
        let closed = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.1.wait_timeout_while(closed, wait::SOON, |open| !*open);
    }
}

impl Deed {
    /// What is right.
    pub fn serve() -> Deed {
        Deed::default()
    }

    pub fn status(status: u16) -> Deed {
        Deed { status: Some(status), body: Some(Body::Bytes(Arc::new([]))), ..Deed::default() }
    }

    /// 401 with this challenge.
    pub fn challenge(challenge: &str) -> Deed {
        Deed::status(401).header("WWW-Authenticate", challenge)
    }

    /// 307 to there.
    pub fn redirect(to: &str) -> Deed {
        Deed::status(307).header("Location", to)
    }

    pub fn body(bytes: impl Into<Arc<[u8]>>) -> Deed {
        Deed { body: Some(Body::Bytes(bytes.into())), ..Deed::default() }
    }

    pub fn cut(at: u64) -> Deed {
        Deed { cut: Some(Some(at)), ..Deed::default() }
    }

    /// The connection is closed without an answer.
    pub fn hang_up() -> Deed {
        Deed { cut: Some(None), ..Deed::default() }
    }

    pub fn drip(piece: usize, pause: Duration) -> Deed {
        Deed { drip: Some((piece, pause)), ..Deed::default() }
    }

    pub fn gate(at: u64, gate: &Gate) -> Deed {
        Deed { gate: Some((at, gate.clone())), ..Deed::default() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Deed {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What was asked and what came of it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub request: Request,
    pub status: u16,
    /// Bytes of the body that went out.
    pub sent: u64,
}

type Script = Box<dyn Fn(&Request) -> Deed + Send + Sync>;

/// What the server's threads share.
pub struct Shared {
    pub content: Mutex<Content>,
    script: RwLock<Script>,
    seen: Mutex<Vec<Seen>>,
    stopped: AtomicBool,
    pub addr: SocketAddr,
}

/// See the module. Stops when dropped.
pub struct Hostile {
    shared: Arc<Shared>,
}

impl Hostile {
    /// A registry on a free port of 127.0.0.1 that behaves.
    pub fn start() -> Hostile {
        Hostile::start_on("127.0.0.1")
    }

    /// The same on another address of the loopback: another host, as a client sees it.
    pub fn start_on(ip: &str) -> Hostile {
        let listener = TcpListener::bind((ip.parse::<std::net::IpAddr>().unwrap(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            script: RwLock::new(Box::new(|_| Deed::serve())),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
            addr,
        });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped() {
                    return;
                }
                let (server, Ok(stream)) = (server.clone(), stream) else { continue };
                // What goes wrong on a connection is the client's to notice: most of it is on purpose.
                std::thread::spawn(move || hostile_wire::serve(&server, stream));
            }
        });
        Hostile { shared }
    }

    /// From now on it does this.
    pub fn behave(&self, script: impl Fn(&Request) -> Deed + Send + Sync + 'static) {
        *self.shared.script.write().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Puts an image there.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        self.content().put(repository, tag, image);
    }

    /// What it holds.
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn addr(&self) -> String {
        self.shared.addr.to_string()
    }

    /// `ADDRESS/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.shared.addr)
    }

    /// Everything that it was asked, in the order in which it was answered.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen().clone()
    }

    /// Forgets what it was asked; also the counts `nth` and `index` start anew.
    pub fn forget(&self) {
        self.shared.seen().clear();
    }

    /// The requests that please.
    pub fn count(&self, pleases: impl Fn(&Request) -> bool) -> usize {
        self.shared.seen().iter().filter(|s| pleases(&s.request)).count()
    }

    /// How many bytes of this blob went out.
    pub fn sent(&self, blob: &Blob) -> u64 {
        self.shared.seen().iter().filter(|s| s.request.is_of(blob)).map(|s| s.sent).sum()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.shared.addr);
    }
}

impl Shared {
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down, and what is to be done about it. The place in the record is for `done`.
    pub fn note(&self, request: &mut Request) -> (usize, Deed) {
        let mut seen = self.seen();
        let same = |s: &&Seen| s.request.method == request.method && s.request.path == request.path;
        request.nth = seen.iter().filter(same).count();
        request.index = seen.len();
        seen.push(Seen { request: request.clone(), status: 0, sent: 0 });
        let at = seen.len() - 1;
        drop(seen);
        (at, (self.script.read().unwrap_or_else(PoisonError::into_inner))(request))
    }

    /// Completes the record of a request.
    pub fn done(&self, at: usize, request: &Request, status: u16, sent: u64) {
        // The record may have been emptied meanwhile.
        if let Some(seen) = self.seen().get_mut(at).filter(|s| s.request.path == request.path) {
            seen.status = status;
            seen.sent += sent;
        }
    }
}
