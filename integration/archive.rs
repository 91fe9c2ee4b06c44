//! Tar archives made by hand for tests: whatever a header can say, also what no tar program would write.

/// A tar archive in the making.
#[derive(Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// What a member is.
#[derive(Clone, Copy)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    Directory,
    Fifo,
}

impl Tar {
    /// A regular file.
    pub fn file(self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Tar {
        self.entry(Kind::File, path, "", data)
    }

    pub fn dir(self, path: impl AsRef<[u8]>) -> Tar {
        self.entry(Kind::Directory, path, "", "")
    }

    pub fn symlink(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Tar {
        self.entry(Kind::Symlink, path, to, "")
    }

    pub fn hard_link(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Tar {
        self.entry(Kind::HardLink, path, to, "")
    }

    /// Any member; long names get GNU long-name members before them.
    pub fn entry(
        mut self,
        kind: Kind,
        path: impl AsRef<[u8]>,
        link: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
    ) -> Tar {
        let (path, link, data) = (path.as_ref(), link.as_ref(), data.as_ref());
        for (name, flag) in [(link, b'K'), (path, b'L')] {
            if name.len() > 99 {
                self.push(b"././@LongLink", b"", flag, &[name, b"\0"].concat(), 0o644);
            }
        }
        let mode = if matches!(kind, Kind::Directory) { 0o755 } else { 0o644 };
        let flag = match kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.push(path, link, flag, data, mode);
        self
    }

    /// A PAX record for the member that follows.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Tar {
        let mut body = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.push(b"PaxHeaders/x", b"", b'x', &body, 0o644);
        self
    }

    fn push(&mut self, path: &[u8], link: &[u8], flag: u8, data: &[u8], mode: u32) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path[..path.len().min(99)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, format!("{:011o}", 1_000_000_000).as_bytes());
        put(148, b"        ");
        put(156, &[flag]);
        put(157, &link[..link.len().min(99)]);
        put(257, b"ustar\x0000");
        // Devices are 1:3, null.
        put(329, b"0000001");
        put(337, b"0000003");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// The archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
