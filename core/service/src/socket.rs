//! Where service and commands meet: the path of the unix socket, and making it so that nobody else gets in.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

const FILE: &str = "pipeline.sock";
/// The socket of a run of one file, in its state folder.
pub const RUN_FILE: &str = "run.sock";
/// Of the socket: for its owner, or for its owner and a group.
const MODE_OWNER: u32 = 0o600;
const MODE_GROUP: u32 = 0o660;

/// The socket's path where none is given: `PIPELINE_SOCKET`, else in `XDG_RUNTIME_DIR`, else in `/run/user/UID` where that is, else in a
/// folder of the user's own among the temporary files. The environment is the caller's to read.
pub fn default_path(environment: impl Fn(&str) -> Option<String>, uid: u32) -> PathBuf {
    let given = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = given("PIPELINE_SOCKET") {
        return path;
    }
    let of_system = PathBuf::from(format!("/run/user/{uid}"));
    let folder = given("XDG_RUNTIME_DIR").or_else(|| of_system.is_dir().then_some(of_system));
    folder.unwrap_or_else(|| std::env::temp_dir().join(format!("pipeline-{uid}"))).join(FILE)
}

/// Listens on a socket that only its owner, or a group as well, can use. One that nobody listens on any more is replaced.
///
/// # Errors
/// Somebody listens there ([`ErrorKind::AddrInUse`]), or it cannot be made.
pub async fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty() && !it.exists()) {
        pipeline_engine::folder::make_private(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(Error::new(ErrorKind::AddrInUse, "another service listens there"));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|it| !std::os::unix::fs::FileTypeExt::is_socket(&it.file_type())) {
        return Err(Error::new(ErrorKind::AlreadyExists, "there is something else of that name"));
    }
    // Nobody gets in before it is closed to others: it gets its name last.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let made = (|| {
        if group.is_some() {
            std::os::unix::fs::chown(&fresh, None, group)?;
        }
        let mode = if group.is_some() { MODE_GROUP } else { MODE_OWNER };
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&fresh, path)
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    made.map(|()| listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_variables_or_the_runtime_folders() {
        let with = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            default_path(move |name| pairs.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone()), 4_000_000)
        };
        assert_eq!(with(&[("PIPELINE_SOCKET", "/a/b.sock"), ("XDG_RUNTIME_DIR", "/c")]), Path::new("/a/b.sock"));
        assert_eq!(with(&[("PIPELINE_SOCKET", ""), ("XDG_RUNTIME_DIR", "/c")]), Path::new("/c/pipeline.sock"));
        assert_eq!(with(&[]), std::env::temp_dir().join("pipeline-4000000/pipeline.sock"));
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_has_one_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/p.sock");
        let listener = listen(&path, None).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE_OWNER);
        assert_eq!(listen(&path, None).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        listen(&path, None).await.expect("nobody listens any more");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(listen(&path, None).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
