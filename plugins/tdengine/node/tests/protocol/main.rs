//! What the recordings do not show: transport, newer actions, the behaviour list of PROTOCOL 13.3 by name, and every code of
//! PROTOCOL 15 with its text.

mod client;
mod site;

mod actions;
mod behaviour;
mod codes;
mod consumers;
mod statements;
mod transport;
