//! Why some answers cannot be those of the recordings.

use crate::drive::Difference;

/// Recording (the start of its name), a part of the request, a part of what differs, and the reason.
const REASONS: &[(&str, &str, &str, &str)] = &[
    ("a1-connect-adapter3301", "version", "3.3.0.0", "the older adapter stands before an older server here"),
    ("c1-tmq-adapter3301", "assignment 22", "end", "which entries were consumers' that came and went is not known (FACTS F59)"),
    ("b4-client-queries", "", "", "what catalogs hold depends on what else that server held; ids of results follow"),
    ("c7-meta-special", "", "", "begins in the middle of a conversation: its subscription was not recorded"),
    ("d4-write-metadata", "", "", "begins in the middle of a conversation: its database was not recorded"),
    ("b1-types", "binary 7 15", "", "a client that rewrites a JSON column leaves out the block's last byte; the node keeps it"),
    ("b2-types", "fetch_block 21", "", "a client that rewrites a JSON column leaves out the block's last byte; the node keeps it"),
    ("f1-python-query", "fetch 10092318075723841542", "", "which of two requests sent at once comes first is a matter of time (FACTS F33)"),
    ("c2-", "fetch_raw", "from byte 12:", "other consumers came and went on that server before: their entries follow (FACTS F59)"),
    ("c3-meta", "index ix", "", "an index leaves no entry in the node's log"),
    ("c3-meta", "poll 1", "offset", "the two entries of the index before are missing"),
    ("c4-offsets", "poll 75", "", "when a message arrives is a matter of time (FACTS F43)"),
    ("c4-offsets", "position 63", "", "how far a lane without messages has been read is a matter of time (FACTS F38)"),
    ("c6-redelivery", "", "", "what it reads was written while it ran, by statements that were not recorded"),
    ("e2-schemaless", "binary 7", "", "names in a catalog come in the order of that server's hash tables"),
    ("errors-insert", "(ts, g)", "ParseException", "the words of the library that reads geometries there"),
    ("errors-insert", "--5", "", "two signs begin a comment here"),
    ("errors-insert", "-.5", "", "a server takes no fraction without digits behind a sign"),
    ("errors-insert", "- 5", "", "outside of INSERT a sign may stand apart here"),
    ("errors-insert", "using n1", "", "a server reads the values before it sees that this is no super table"),
    ("errors-insert", "using c1", "", "a server reads the values before it sees that this is no super table"),
    ("errors-insert", "using st tags (", "expected", "how many tags there are is not known where the text is read"),
    ("errors-insert", "using st tags (1, 'a' 2)", "", "how many tags there are is not known where the text is read"),
    ("errors-insert", "using st (t tags", "", "a server looks names up one by one as it reads them"),
    ("errors-insert", "into c1 using", "Incomplete", "a server takes the end of the text for a name"),
    ("f4-jdbc-query", "binary 7", "", "what catalogs hold depends on what else that server held"),
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
