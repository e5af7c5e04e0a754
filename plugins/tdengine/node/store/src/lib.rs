//! What the embedded node keeps: catalog, write-ahead logs, tables, topics, and the queries over them.
