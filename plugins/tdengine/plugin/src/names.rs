//! Names of what a replica leaves at a site: topics, groups, and a database for canaries.
//!
//! One set of topics per database and site, shared by all replicas, because a server allows few (FACTS F46); groups tell
//! replicas apart. Names are made of characters that no server hangs on (FACTS F45).

use xxhash_rust::xxh3::xxh3_64;

/// Start of every topic and group of ours, unless configured otherwise.
pub const PREFIX_DEFAULT: &str = "pipeline";
/// A small database of ours that is never replicated.
pub const CANARY_DATABASE: &str = "pipeline_canary";
/// Another one, which services that share tasks hold lanes of.
pub const LOCK_DATABASE: &str = "pipeline_locks";
/// Databases of the system's own (issue: all but these and ours are `"*"`).
const SYSTEM_DATABASES: [&str; 4] = ["information_schema", "performance_schema", "log", "audit"];

/// Whether `"*"` leaves this database out.
pub fn is_reserved_database(name: &str) -> bool {
    SYSTEM_DATABASES.contains(&name) || name.starts_with(CANARY_DATABASE) || name == LOCK_DATABASE
}

/// The topic `with meta as database` of a database.
pub fn topic(prefix: &str, database: &str) -> String {
    plain(&format!("{prefix}_{database}"))
}

/// The topic `only meta as database`, for schemas that schemaless writes grow (FACTS F66).
pub fn meta_topic(prefix: &str, database: &str) -> String {
    plain(&format!("{prefix}_meta_{database}"))
}

/// The consumer group of a pipeline's task.
pub fn group(pipeline: &str, database: &str) -> String {
    plain(&format!("pipeline_{pipeline}_{database}"))
}

/// Start of the groups of consumers that only look at lanes; no pipeline can be called so, as its group says `pipeline_NAME_`.
const OBSERVER: &str = "observer";

/// The group of one consumer that only looks at lanes.
pub fn observer(nonce: u64) -> String {
    format!("{OBSERVER}_{nonce:016x}")
}

/// Whether a group is of a consumer that only looks.
pub fn is_observer(group: &str) -> bool {
    group.strip_prefix(OBSERVER).is_some_and(|rest| rest.starts_with('_'))
}

/// Keeps letters, digits and `_`; a name that lost something gets a hash of what it was.
fn plain(name: &str) -> String {
    const BYTES_MAX: usize = 160;
    let kept: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '_' })
        .take(BYTES_MAX)
        .collect();
    if kept == name { kept } else { format!("{kept}_{:08x}", xxh3_64(name.as_bytes()) as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_differ_where_databases_do() {
        assert_eq!(topic("pipeline", "power"), "pipeline_power");
        let odd = ["Power", "a:b", "a.b", "涛", &"x".repeat(300)].map(|name| topic("pipeline", name));
        for name in &odd {
            assert!(name.len() <= 192 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        }
        assert_ne!(odd[1], odd[2]);
        assert_ne!(topic("pipeline", "Power"), topic("pipeline", "power"));
    }
}
