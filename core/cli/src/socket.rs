//! Where service and commands meet, as the environment of this process says.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// The service's socket: `given`, or the default of this user.
pub fn socket_path(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| pipeline_service::socket::default_path(|name| std::env::var(name).ok(), user_number()), Path::to_owned)
}

/// Where a run listens whose state is in this folder: in the folder, or where the user's sockets are if its path is too long for one.
pub fn run_socket(state: &Path) -> PathBuf {
    const FILE: &str = pipeline_service::socket::RUN_FILE;
    /// Of a socket's path the system takes 107 bytes; ours gets a name of its own first.
    const PATH_BYTES_MAX: usize = 90;
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
    let path = state.join(FILE);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return path;
    }
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&state, &mut hasher);
    socket_path(None).with_file_name(format!("run-{:016x}.sock", std::hash::Hasher::finish(&hasher)))
}

/// The token in a file; `hint` says how it comes to be there.
pub fn read_token(file: &Path, hint: &str) -> Result<String, CommandError> {
    std::fs::read_to_string(file).map_err(|error| {
        CommandError::bad_usage(format!("the token's file {} cannot be read: {error}", file.display())).hint(hint)
    })
}

/// The user that this process runs as; the superuser where the system does not tell.
fn user_number() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |it| it.uid())
}

/// The number of a group that is given by name or number.
pub fn group_number(group: &str) -> Result<u32, CommandError> {
    const GROUPS: &str = "/etc/group";
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    // NAME:PASSWORD:NUMBER:MEMBERS
    let groups = std::fs::read_to_string(GROUPS).unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(group)).then(|| parts.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| {
        CommandError::bad_usage(format!("there is no group `{group}` in {GROUPS}")).hint("name another one, or give its number")
    })
}
