//! Users and passwords. Passwords are kept as salted hashes that are good enough against a glance into a file; the node
//! is for trying, developing and testing, and must not face a network that is not trusted.

use crate::database::User;

/// The user that a new cluster has, with the password that TDengine gives it.
pub(crate) fn root(created_ms: i64) -> User {
    User { is_super: true, ..user("root", "taosdata", created_ms) }
}

/// A user with this password.
pub(crate) fn user(name: &str, password: &str, created_ms: i64) -> User {
    let salt: u64 = rand::random();
    User { name: name.to_owned(), password_hash: hash(salt, password), is_super: false, created_ms }
}

/// Whether this is the user's password.
pub(crate) fn matches(user: &User, password: &str) -> bool {
    let salt = user.password_hash.split(':').next().and_then(|salt| u64::from_str_radix(salt, 16).ok());
    salt.is_some_and(|salt| hash(salt, password) == user.password_hash)
}

fn hash(salt: u64, password: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_128_with_seed(password.as_bytes(), salt);
    format!("{salt:016x}:{hash:032x}")
}
