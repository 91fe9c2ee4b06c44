//! HTTP/1.1 on a socket, as far as a registry's clients speak it, and the ways in which the bytes of an answer go wrong.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::honest_registry::Answer;
use crate::hostile_registry::{Body, Deed, Request, Shared};
use crate::wait;

/// Answers requests on a connection until it ends.
pub fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    // A peer that reads no more must not keep a thread for ever.
    stream.set_write_timeout(Some(wait::SOON))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(mut request) = read_head(&mut reader)? {
        let (at, deed) = shared.note(&mut request);
        let (status, sent, goes_on) = one(shared, &request, &deed, &mut reader, &mut writer, &mut |sent| {
            shared.done(at, &request, 0, sent);
        })?;
        shared.done(at, &request, status, sent);
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// One request: its status, and whether the connection can go on. Bytes are reported when they go out, so that a
/// client's death in between loses no count.
fn one(
    shared: &Shared,
    request: &Request,
    deed: &Deed,
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
    sent: &mut dyn FnMut(u64),
) -> io::Result<(u16, u64, bool)> {
    let is_upload = request.path.contains("/blobs/uploads/");
    if deed.cut == Some(None) {
        return Ok((0, 0, false));
    }
    if request.header("expect").is_some() {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    // A script's own status stands for a registry that did not take what it was sent.
    let takes = deed.status.is_none();
    let whole = read_body(request, reader, deed.cut_request, &mut |bytes| match is_upload {
        true if takes => content(shared).add_to_upload(&request.path, bytes),
        true => (),
        false => body.extend(bytes),
    })?;
    if !whole {
        return Ok((0, 0, false));
    }
    let answer = match deed.status {
        Some(status) => Answer { status, headers: vec![], body: Arc::new([]), from: 0 },
        None => {
            let mut request = request.clone();
            request.headers.retain(|(name, _)| !(deed.ignore_range && name == "range"));
            content(shared).answer(&request, &body)
        }
    };
    let status = deed.status.unwrap_or(answer.status);
    let body = deed.body.clone().unwrap_or(Body::Bytes(answer.body.clone()));
    let total = match &body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Padded(_, total) => *total,
    };
    let from = if deed.body.is_some() { 0 } else { answer.from };
    let length = total - from;
    writer.write_all(head(status, &answer, deed, length).as_bytes())?;
    if request.method == "HEAD" || status == 204 {
        return Ok((status, 0, true));
    }
    let whole = write_body(shared, deed, &body, (from, total), writer, sent)?;
    Ok((status, 0, whole && deed.length_off == 0))
}

fn content(shared: &Shared) -> std::sync::MutexGuard<'_, crate::honest_registry::Content> {
    shared.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn head(status: u16, answer: &Answer, deed: &Deed, length: u64) -> String {
    let mut text = format!("HTTP/1.1 {status} so\r\n");
    let said = length.saturating_add_signed(deed.length_off).to_string();
    let replaced = |name: &str| deed.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let own = [("Content-Length".to_owned(), said)];
    let right = answer.headers.iter().chain(&own).filter(|(name, _)| !replaced(name));
    for (name, value) in right.chain(deed.headers.iter().filter(|(_, value)| !value.is_empty())) {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

/// Sends the body as the deed has it; whether all of it went out.
fn write_body(
    shared: &Shared,
    deed: &Deed,
    body: &Body,
    (from, total): (u64, u64),
    writer: &mut TcpStream,
    sent: &mut dyn FnMut(u64),
) -> io::Result<bool> {
    let cut = deed.cut.flatten().map(|at| from + at);
    let gate = deed.gate.as_ref().map(|(at, gate)| (from + at, gate));
    let (piece, pause) = deed.drip.unwrap_or((64 << 10, Default::default()));
    let mut at = from;
    let mut buffer = Vec::new();
    while at < total {
        if cut.is_some_and(|cut| at >= cut) || shared.stopped() {
            return Ok(false);
        }
        if let Some((_, gate)) = gate.filter(|(gate, _)| at == *gate) {
            gate.wait();
        }
        if !pause.is_zero() {
            wait::within(pause, || None::<()>);
        }
        let mut end = (at + piece as u64).min(total);
        for stop in cut.into_iter().chain(gate.map(|(at, _)| at)).filter(|stop| *stop > at) {
            end = end.min(stop);
        }
        buffer.clear();
        match body {
            Body::Bytes(bytes) => buffer.extend(&bytes[at as usize..end as usize]),
            Body::Padded(start, _) => {
                let byte = |n: u64| start.as_bytes().get(n as usize).copied().unwrap_or(b' ');
                buffer.extend((at..end).map(byte));
            }
        }
        if let Some(flip) = deed.flip.filter(|flip| (at..end).contains(flip)) {
            buffer[(flip - at) as usize] ^= 1;
        }
        // Written down first: who has read the last byte may look at the record before this thread runs again.
        sent(end - at);
        writer.write_all(&buffer)?;
        at = end;
    }
    Ok(cut.is_none_or(|cut| cut > total))
}

/// The first line and the headers; nothing where the connection ended.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // A proxy is asked by the whole address.
    let target = target
        .strip_prefix("http://")
        .and_then(|rest| Some(rest.split_at(rest.find('/')?).1.to_owned()))
        .unwrap_or(target);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (path, query) = (path.replace("%3A", ":").replace("%3a", ":"), query.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Request { method, path, query, headers, nth: 0, index: 0 }))
}

/// Reads a request's body, up to where the deed cuts it; whether it came whole.
fn read_body(
    request: &Request,
    reader: &mut impl BufRead,
    cut: Option<u64>,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let mut left = cut.unwrap_or(u64::MAX);
    let chunked = request.header("transfer-encoding").is_some_and(|e| e.eq_ignore_ascii_case("chunked"));
    if !chunked {
        let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        return take(reader, length, &mut left, each);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Ok(length) = u64::from_str_radix(line.trim(), 16) else { return Ok(false) };
        if !take(reader, length, &mut left, each)? {
            return Ok(false);
        }
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(true);
        }
    }
}

fn take(
    reader: &mut impl Read,
    length: u64,
    left: &mut u64,
    each: &mut dyn FnMut(&[u8]),
) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < length.min(*left) {
        let n = (length.min(*left) - at).min(buffer.len() as u64) as usize;
        let n = reader.read(&mut buffer[..n])?;
        if n == 0 {
            return Ok(false);
        }
        each(&buffer[..n]);
        at += n as u64;
    }
    let whole = at == length;
    *left -= at;
    Ok(whole)
}
