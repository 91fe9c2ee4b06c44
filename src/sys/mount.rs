//! mount_setattr(2), which rustix does not wrap.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr {
    /// MOUNT_ATTR_* to set.
    pub attr_set: u64,
    /// MOUNT_ATTR_* to clear.
    pub attr_clr: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE or 0 to leave it.
    pub propagation: u64,
    /// The user name space of MOUNT_ATTR_IDMAP.
    pub userns_fd: u64,
}

/// Of linux/mount.h: the owners of files are shown through the maps of a user name space.
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Changes the mount at `path` beneath `dir_fd`; `flags` are AT_RECURSIVE, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW.
pub fn mount_setattr(dir_fd: impl AsFd, path: &CStr, flags: u32, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and `path` ends with NUL; the kernel reads `size` bytes of `attr`, all of it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir_fd.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const *attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
