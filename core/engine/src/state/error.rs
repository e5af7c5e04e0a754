//! Errors of the store as people need them: what, where, what to do.

use std::io::ErrorKind;
use std::path::Path;

use pipeline_sdk::Error;

pub(super) fn io(path: &Path, error: &std::io::Error) -> Error {
    let (code, hint) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            ("state.full", "make room on the disk; nothing was lost: the run goes on from the last stored position")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            ("state.denied", "make the state folder writable, or choose another one with --state")
        }
        _ => ("state.io", "check the disk, or choose another state folder with --state"),
    };
    Error::fatal(format!("the state store {} cannot be used: {error}", path.display())).code(code).hint(hint)
}

pub(super) fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::fatal(format!("the state store {} is damaged: {what}", path.display())).code("state.damaged").hint(
        "put a copy of it back, or move it away: pipelines then begin where their sources' configuration says",
    )
}

/// Whether what was read is to blame, rather than the reading.
fn is_of_content(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof)
}

pub(super) fn storage(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error) if is_of_content(error.kind()) => damaged(path, error),
        redb::Error::Io(error) => io(path, &error),
        redb::Error::PreviousIo => {
            io(path, &std::io::Error::other("an earlier write failed; the store is closed until the next start"))
        }
        redb::Error::Corrupted(what) => damaged(path, what),
        redb::Error::UpgradeRequired(version) => damaged(path, format!("its file format {version} is too old")),
        error => damaged(path, error),
    }
}
