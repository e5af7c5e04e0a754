//! Why some answers cannot be those of the recordings.

use crate::drive::Difference;

/// Recording (the start of its name), a part of the request, a part of what differs, and the reason.
const REASONS: &[(&str, &str, &str, &str)] = &[
    ("a1-connect-adapter3301", "", "", "an older adapter than the one that the node stands in for"),
    ("c1-tmq-adapter3301", "", "", "an older adapter than the one that the node stands in for"),
    ("b4-client-queries", "", "", "what catalogs hold depends on what else that server held; ids of results follow"),
    ("c7-meta-special", "", "", "begins in the middle of a conversation: its subscription was not recorded"),
    ("d4-write-metadata", "", "", "begins in the middle of a conversation: its database was not recorded"),
    ("f3-python-tmq", "", "", "the log that it reads was not recorded"),
    ("f6-jdbc-tmq", "", "", "the log that it reads was not recorded"),
    ("f7-jdbc340-tmq", "", "", "the log that it reads was not recorded"),
    ("f8-jdbc333-tmq", "", "", "the log that it reads was not recorded"),
];

/// The reason for a difference.
pub fn find(name: &str, difference: &Difference) -> Option<&'static str> {
    let fits = |(of, request, what, _): &&(&str, &str, &str, &str)| {
        name.starts_with(of) && difference.request.contains(request) && difference.what.contains(what)
    };
    REASONS.iter().find(fits).map(|(.., reason)| *reason)
}
