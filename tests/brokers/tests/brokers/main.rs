//! Plugins for brokers and databases against the real ones: started on free ports with their data in a temporary folder, killed amid
//! the work, and looked at by their own clients. `tests/run` installs them; one that is missing is an error, never a skip.

mod rig;
mod http;
mod mqtt;
mod nats;
mod kafka;
mod postgres;
