//! Who a container's program is: looked up in the container's own files, given a name and a home there if it has none, and
//! which ids the caller has inside (`--userns`, `own`).

use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

use super::{own, person};
use crate::fs;
use crate::host::{IdMapping, Ids, InnerIds, place_of_root};
use crate::oci::runtime::{Mount, Spec};
use crate::runtime::inner::Inner;
use crate::runtime::rootfs::Root;
use crate::spec::person as lines;
use crate::spec::user::{self, Resolved};
use crate::store::container::{ContainerDir, Record, Source};
use crate::store::mapped::{Move, Moves};
use crate::store::{Store, layer, rootfs, view};

/// The ids of the container, where they are not those around.
pub(super) fn inner(store: &Store, spec: &Spec, record: &Record) -> Result<Option<Inner>> {
    if let Some(ids) = &record.ids {
        return Ok(Some(Inner::Mapped(ids.clone())));
    }
    Ok(inner_ids(store, spec, record)?.map(Inner::Caller))
}

/// The ids that the caller has in the container, where they are not root's there: those asked for; for a mount that is to
/// be the caller's (`own`) those of the container's user.
fn inner_ids(store: &Store, spec: &Spec, record: &Record) -> Result<Option<InnerIds>> {
    if let Some(person) = &record.person {
        return Ok(person.is_inner.then_some(InnerIds { uid: Some(person.uid), gid: Some(person.gid) }));
    }
    let asked = record.inner.filter(|ids| *ids != InnerIds { uid: Some(0), gid: Some(0) });
    // With one id it is the caller or nobody: another user, such as root, is one by emulation.
    if let (Ids::Single, Some(InnerIds { uid: Some(uid), .. })) = (&store.ids, asked) {
        let is_caller = record.user.split(':').next() == Some(uid.to_string().as_str());
        return Ok(asked.filter(|_| is_caller));
    }
    // Root needs no name space for it, and with one id there is nobody but the caller.
    if asked.is_some() || !matches!(store.ids, Ids::Ranges { .. }) || !own::is_asked(spec) {
        return Ok(asked);
    }
    let (passwd, group) = users_of_image(store, record)?;
    let user = user::resolve(&record.user, &[], &passwd, &group)?;
    let ids = InnerIds { uid: Some(user.uid), gid: Some(user.gid) };
    Ok(Some(ids).filter(|_| (user.uid, user.gid) != (0, 0)))
}

/// /etc/passwd and /etc/group of the image that a container is made from.
pub fn users_of_image(store: &Store, record: &Record) -> Result<(String, String)> {
    let lower = match &record.source {
        Source::Image { diff_ids, .. } => layer::lower_dirs(store, diff_ids)?,
        Source::Dir { path, .. } => vec![path.clone()],
    };
    let view = view::open(store, &lower)?;
    let root = Root::from(view.root.try_clone().context("cannot use the image's root")?);
    Ok((read_inside(&root, "/etc/passwd"), read_inside(&root, "/etc/group")))
}

/// Which owners the image's files need then. A person's box does without: what is root's there is theirs.
pub(super) fn moves(store: &Store, record: &Record, inner: Option<&Inner>) -> Result<Option<Moves>> {
    let ids = match inner {
        Some(Inner::Mapped(ids)) => {
            let of = |lines: &[IdMapping]| Move { lines: lines.to_vec(), ..Move::default() };
            return Ok(Some(Moves { uid: of(&ids.uids), gid: of(&ids.gids) }));
        }
        Some(Inner::Caller(ids)) if record.person.is_none() && store.ids != Ids::Single => *ids,
        _ => return Ok(None),
    };
    let of = |file: &str, own: Option<u32>| -> Result<Option<Move>> {
        let map = fs::read_to_string(&Path::new("/proc/self").join(file))?;
        Ok(place_of_root(&map, own).map(|root| Move { root, swap: own == Some(root), ..Move::default() }))
    };
    let (uid, gid) = (of("uid_map", ids.uid)?, of("gid_map", ids.gid)?);
    let moves = uid.zip(gid).map(|(uid, gid)| Moves { uid, gid });
    Ok(moves.filter(|moves| (moves.uid.root, moves.gid.root) != (0, 0)))
}

/// [`moves`] for who looks at the container's files while it does not run.
pub fn moves_of(store: &Store, dir: &ContainerDir, record: &Record) -> Result<Option<Moves>> {
    if record.inner.is_none() && record.caller.is_none() && record.ids.is_none() {
        return Ok(None);
    }
    let text = fs::read_to_string(&dir.file("config.json"))?;
    let spec: Spec = serde_json::from_str(&text).context("cannot read config.json")?;
    moves(store, record, inner(store, &spec, record)?.as_ref())
}

/// A user that is only a number gets an entry in /etc/passwd and a home of their own: programs ask for both. In the
/// container's layer, and so never in a directory of the host's.
fn make_known(
    spec: &mut Spec,
    store: &Store,
    record: &Record,
    (root, inner): (&Root, Option<&Inner>),
) -> Result<()> {
    let is_ours = !matches!(record.source, Source::Dir { throw_away: false, .. });
    let is_wanted = record.options.get("no_passwd").and_then(serde_json::Value::as_bool) != Some(true);
    if record.user.is_empty() || !is_ours || !is_wanted {
        return Ok(());
    }
    let (passwd, group) = (read_inside(root, "/etc/passwd"), read_inside(root, "/etc/group"));
    // What cannot be resolved is told by who resolves it next.
    let Ok(user) = user::resolve(&record.user, &[], &passwd, &group) else { return Ok(()) };
    if user.is_known {
        return Ok(());
    }
    let is_caller = matches!(inner, Some(Inner::Caller(ids)) if ids.uid == Some(user.uid));
    let caller = record.caller.as_ref().filter(|_| is_caller).map(|caller| caller.name.clone());
    let name = caller.filter(|name| lines::is_name(name)).unwrap_or_else(|| user.uid.to_string());
    let env = spec.process().as_ref().and_then(|p| p.env().clone()).unwrap_or_default();
    let home = env.iter().find_map(|e| e.strip_prefix("HOME=")).filter(|h| lines::is_field(h));
    let home = home.map_or_else(|| format!("/home/{name}"), str::to_owned);
    let asked = |key: &str| record.options.get(key).and_then(serde_json::Value::as_str);
    let fill_in = |entry: &str| {
        let numbers = [("$UID", user.uid.to_string()), ("$GID", user.gid.to_string())];
        let names =
            [("$USERNAME", name.clone()), ("$NAME", "container user".to_owned()), ("$HOME", home.clone())];
        let all = names.into_iter().chain(numbers);
        all.fold(entry.to_owned(), |text, (word, value)| text.replace(word, &value))
    };
    let line = asked("passwd_entry").map(fill_in);
    let name = line.as_deref().and_then(|line| line.split(':').next()).map_or(name.clone(), str::to_owned);
    let line =
        line.unwrap_or_else(|| format!("{name}:*:{}:{}:container user:{home}:/bin/sh", user.uid, user.gid));
    root.create_dir_all(Path::new("/etc"), Mode::from_raw_mode(0o755))?;
    if let Some(text) = lines::passwd(&passwd, &name, user.uid, &line) {
        root.replace_file(Path::new("/etc/passwd"), text.as_bytes())?;
    }
    let own_group = asked("group_entry").map(|entry| {
        let entry = entry.replace("$GROUPNAME", &name).replace("$GID", &user.gid.to_string());
        let newline = if group.is_empty() || group.ends_with('\n') { "" } else { "\n" };
        format!("{group}{newline}{entry}\n")
    });
    if let Some(text) = lines::group(&group, &name, user.gid).map(|text| own_group.unwrap_or(text)) {
        root.replace_file(Path::new("/etc/group"), text.as_bytes())?;
    }
    if record.has_home {
        return Ok(());
    }
    let owner = match store.ids {
        // There is no other.
        Ids::Single => (0, 0),
        _ => outside(inner, (user.uid, user.gid))?,
    };
    if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        push_home(spec, &home, owner);
    }
    make_home(root, Path::new(&home), owner)
}

/// The ids around the inner name space, if there is one, of a user and a group in it.
pub(super) fn outside(inner: Option<&Inner>, (uid, gid): (u32, u32)) -> Result<(u32, u32)> {
    match inner {
        None => Ok((uid, gid)),
        Some(Inner::Mapped(ids)) => Ok(ids.outside((uid, gid))),
        Some(Inner::Caller(ids)) => {
            Ok((outer(Some(ids.uid), uid, "uid_map")?, outer(Some(ids.gid), gid, "gid_map")?))
        }
    }
}

/// The id around the inner name space that `id` has there; `own` is the caller's.
fn outer(own: Option<Option<u32>>, id: u32, file: &str) -> Result<u32> {
    let Some(own) = own else { return Ok(id) };
    if own == Some(id) {
        return Ok(0);
    }
    let map = fs::read_to_string(&Path::new("/proc/self").join(file))?;
    Ok(if id == 0 { place_of_root(&map, own).unwrap_or(0) } else { id })
}

fn make_home(root: &Root, home: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    if root.locate(home).is_ok() {
        return Ok(());
    }
    let dir = root.create_dir_all(home, Mode::from_raw_mode(0o755))?;
    let about = || format!("cannot give {} to its user", home.display());
    match rustix::fs::chownat(
        &dir,
        c"",
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::EMPTY_PATH,
    ) {
        // With one id it is everybody's there is.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(error) => return Err(error).with_context(about),
    }
    let by_number = format!("/proc/self/fd/{}", dir.as_raw_fd());
    rustix::fs::chmod(by_number, Mode::from_raw_mode(0o750)).with_context(about)
}

/// On a read-only root, a home that can be written to, in memory.
fn push_home(spec: &mut Spec, home: &str, (uid, gid): (u32, u32)) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    if mounts
        .iter()
        .any(|m| Path::new(home).starts_with(m.destination()) && m.destination() != Path::new("/"))
    {
        return;
    }
    let mut mount = Mount::default();
    mount.set_destination(home.into());
    mount.set_typ(Some("tmpfs".into()));
    mount.set_source(Some("tmpfs".into()));
    let words = ["nosuid", "nodev", "mode=750"].map(str::to_owned).into_iter();
    mount.set_options(Some(words.chain([format!("uid={uid}"), format!("gid={gid}")]).collect()));
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
}

/// Looks the user up in the container's own files, beneath its root.
pub(super) fn resolve_user(
    spec: &mut Spec,
    store: &Store,
    record: &Record,
    (root, inner): (&rootfs::Root, Option<&Inner>),
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    let root = match root {
        rootfs::Root::Mount(tree) => Root::from(tree.try_clone().context("cannot use the root")?),
        rootfs::Root::Dir(path) => Root::open_host(path)?,
    };
    super::zone::link(&root, record);
    if record.person.is_none()
        && let Err(error) = make_known(spec, store, record, (&root, inner))
    {
        warn(format!("the container's user has no name and no home there: {}", crate::error::chain(&error)));
    }
    let process = spec.process_mut().as_mut().context("config.json has no process")?;
    if let Some(known) = &record.person {
        person::introduce(known, &root, warn);
        person::become_person(process, known, &root);
        return Ok(());
    }
    let resolved = apply_user(process, &record.user, &extra_groups(record), record.has_home, &root)?;
    if inner.is_some() && store.ids == Ids::Single {
        keep_groups(process);
    }
    let user = match inner {
        Some(Inner::Mapped(ids)) => ids.outside((resolved.uid, resolved.gid)),
        _ => (resolved.uid, resolved.gid),
    };
    own::map_mounts(spec, store, record, user)
}

/// The groups that the container's users have besides their own (`--group-add`).
pub fn extra_groups(record: &Record) -> Vec<String> {
    let asked = record.options.get("group_add");
    asked.and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default()
}

/// The word among them that stands for the caller's own.
pub const KEEP_GROUPS: &str = "keep-groups";

/// Sets ids, groups and HOME of a process for the user `text`. With [`KEEP_GROUPS`] it has the groups that we have, whose
/// files it can open though the container's ids do not name them.
pub fn apply_user(
    process: &mut crate::oci::runtime::Process,
    text: &str,
    extra: &[String],
    has_home: bool,
    root: &Root,
) -> Result<Resolved> {
    let passwd = read_inside(root, "/etc/passwd");
    let group = read_inside(root, "/etc/group");
    let keeps_groups = extra.iter().any(|group| group == KEEP_GROUPS);
    let extra = if keeps_groups { &[] } else { extra };
    let resolved = user::resolve(text, extra, &passwd, &group)?;
    let target = process.user_mut();
    target.set_uid(resolved.uid);
    target.set_gid(resolved.gid);
    target.set_additional_gids(Some(resolved.groups.clone()).filter(|_| !keeps_groups));
    if !has_home && let Some(env) = process.env_mut() {
        env.push(format!("HOME={}", resolved.home));
    }
    if resolved.uid != 0 {
        drop_capabilities(process);
    }
    Ok(resolved)
}

/// With one id the caller's groups are those they have: the kernel lets nobody take on others (user_namespaces(7)).
pub fn keep_groups(process: &mut crate::oci::runtime::Process) {
    process.user_mut().set_additional_gids(None);
}

/// A user other than root has none of its own; what it may gain by exec is the bounding set.
pub(super) fn drop_capabilities(process: &mut crate::oci::runtime::Process) {
    if let Some(mut caps) = process.capabilities().clone() {
        let none = || Some(std::collections::HashSet::new());
        caps.set_effective(none());
        caps.set_permitted(none());
        process.set_capabilities(Some(caps));
    }
}

/// A small file of the container; empty where there is none, or where it is not a file.
pub(super) fn read_inside(root: &Root, path: &str) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = root.open_file(Path::new(path)) {
        let _ = std::fs::File::from(file).take(4 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
