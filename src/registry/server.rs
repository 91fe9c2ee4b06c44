//! A registry for tests, on loopback: answers what the test says, right or wrong.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Of how many bytes of the body the client spoke.
    pub length: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// What the test wants to be said.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The connection is cut after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }
    pub fn cut(mut self, at: usize) -> Reply {
        self.cut = Some(at);
        self
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; its threads end with the test's process.
pub struct Server {
    pub authority: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_reading(usize::MAX, answer)
    }

    /// The same, of which the first request that has a body of more than `limit` bytes is cut off there.
    pub fn start_reading(limit: usize, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log): (Arc<Answer>, _) = (Arc::new(answer), seen.clone());
        let limit = Arc::new(Mutex::new(limit));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log, limit) = (answer.clone(), log.clone(), limit.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &*answer, &log, &limit));
            }
        });
        Server { authority, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &Answer, seen: &Mutex<Vec<Request>>, limit: &Mutex<usize>) {
    stream.set_nodelay(true).unwrap();
    let mut out = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    while let Some((request, is_cut)) = read(&mut input, limit) {
        seen.lock().unwrap().push(request.clone());
        let reply = answer(&request);
        if is_cut {
            return;
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let says_length =
            reply.headers.iter().any(|(n, _)| matches!(*n, "content-length" | "transfer-encoding"));
        if !says_length && reply.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
        }
        head.push_str("\r\n");
        let body = if request.method == "HEAD" { &[][..] } else { &reply.body };
        let end = reply.cut.unwrap_or(body.len()).min(body.len());
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body[..end])).is_err()
            || reply.cut.is_some()
        {
            let _ = out.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read(input: &mut BufReader<TcpStream>, limit: &Mutex<usize>) -> Option<(Request, bool)> {
    let mut line = String::new();
    // A TLS greeting is no text: the connection is closed.
    input.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut limit = limit.lock().unwrap();
    let is_cut = length > *limit;
    let mut body = vec![0; length.min(*limit)];
    if is_cut {
        *limit = usize::MAX;
    }
    drop(limit);
    input.read_exact(&mut body).ok()?;
    Some((Request { method, path, headers, body, length }, is_cut))
}
