//! What the whole-system tests share: sites reached by plain HTTP, and the built `pipeline` binary as a child process.
//!
//! Nothing of the product is linked in, so that a defect of its client cannot hide itself. A site is an embedded node that the
//! test starts, or a real server: set `PIPELINE_TEST_SITES=HOST:PORT,HOST:PORT` to run the same tests against a real pair.

mod api;
mod kit;
mod pair;
mod port;
mod process;
mod random;
mod scene;
mod site;
mod stop;
mod wait;
mod watch;
mod writer;

pub use api::{Api, ask_over_tcp};
pub use kit::{Findings, check_plugin, is_full_tier};
pub use pair::{Pair, drop_topics, pipelines, start_node, start_node_with, wait_for_node};
pub use port::free_port;
pub use process::{Process, binary};
pub use random::Random;
pub use scene::{Outcome, Scene};
pub use site::Site;
pub use stop::StopAtEnd;
pub use wait::wait_for;
pub use watch::{insert_bytes, insert_line, messages_at};
pub use writer::{Client, Writer};
