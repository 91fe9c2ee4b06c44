//! Archives made by hand, so that they can say anything.

/// An archive that is being made.
#[derive(Clone, Default)]
pub(super) struct Archive(pub(super) Vec<u8>);

/// One header, with what is usual filled in.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    pub(super) fn new(kind: u8) -> Header {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (link, pax) = (Vec::new(), Vec::new());
        Header { kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, link, device: (0, 0), pax }
    }

    pub(super) fn mode(mut self, mode: u32) -> Header {
        self.mode = mode;
        self
    }

    pub(super) fn pax(mut self, key: &str, value: &[u8]) -> Header {
        self.pax.push((key.into(), value.into()));
        self
    }
}

impl Archive {
    pub(super) fn dir(self, name: &str) -> Archive {
        self.entry(&Header::new(b'5'), name.as_bytes(), b"")
    }

    pub(super) fn file(self, name: &str, content: &str) -> Archive {
        self.entry(&Header::new(b'0'), name.as_bytes(), content.as_bytes())
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Archive {
        let header = Header { link: target.into(), ..Header::new(b'2') };
        self.entry(&header, name.as_bytes(), b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Archive {
        let header = Header { link: target.into(), ..Header::new(b'1') };
        self.entry(&header, name.as_bytes(), b"")
    }

    pub(super) fn device(self, name: &str, kind: u8, major: u32, minor: u32) -> Archive {
        let header = Header { device: (major, minor), ..Header::new(kind) };
        self.entry(&header, name.as_bytes(), b"")
    }

    /// An entry; names that do not fit go into PAX records.
    pub(super) fn entry(mut self, header: &Header, name: &[u8], payload: &[u8]) -> Archive {
        let mut pax = header.pax.clone();
        if name.len() > 100 {
            pax.push((b"path".to_vec(), name.to_vec()));
        }
        if header.link.len() > 100 {
            pax.push((b"linkpath".to_vec(), header.link.clone()));
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            self.block(&Header::new(b'x'), b"pax", &records);
        }
        self.block(header, name, payload);
        self
    }

    pub(super) fn global(mut self, key: &str, value: &str) -> Archive {
        self.block(&Header::new(b'g'), b"global", &record(key.as_bytes(), value.as_bytes()));
        self
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    fn block(&mut self, header: &Header, name: &[u8], payload: &[u8]) {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{:07o}\0", header.mode).as_bytes());
        put(108, format!("{:07o}\0", header.uid).as_bytes());
        put(116, format!("{:07o}\0", header.gid).as_bytes());
        put(124, format!("{:011o}\0", payload.len()).as_bytes());
        put(136, format!("{:011o}\0", header.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, &header.link[..header.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0{:07o}\0", header.device.0, header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}

/// A PAX record: its length counts its own digits.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
