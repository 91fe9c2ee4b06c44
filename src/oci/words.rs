//! Option words of mounts that the runtime spec does not have. They stand in config.json, and mean the same to whoever
//! writes them there.

/// The type of a mount that is the container's secrets: see `runtime::secrets`.
pub const SECRETS: &str = "x-dhow.secrets";
/// The type of a mount that is another container's /dev/shm; its source is that one's mount name space.
pub const SHM_OF: &str = "x-dhow.shm-of";
/// What is mounted of the source, resolved beneath it: `x-dhow.subpath=PATH`.
pub const SUBPATH: &str = "x-dhow.subpath=";
/// Only the mount itself is read-only, and not what is mounted beneath it.
pub const READ_ONLY_ALONE: &str = "x-dhow.ro-alone";
/// Where no mount can be made, the container does without this one.
pub const OPTIONAL: &str = "x-dhow.optional";
/// What the container's user writes belongs to the caller: the supervisor, which knows both, puts id mappings in its place.
pub const OWN: &str = "x-dhow.own";
