//! Ports of this machine for servers that tests start.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, bail};

/// Below those that systems take for the near end of connections: a server that is down for a while finds its port free again.
const PORTS: Range<u16> = 10_000..32_000;

/// Who has the UDP port of a number has its TCP port: held until the process ends, and no file is left behind.
static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A free port that no other test is given, of this process or another one, as long as this process runs.
pub fn free_port() -> Result<u16> {
    // Processes begin at different places, so that a port rests before it is used again.
    let begin = std::process::id() as usize;
    for at in 0..PORTS.len() {
        let port = PORTS.start + ((begin + at) % PORTS.len()) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if let Ok(taken) = UdpSocket::bind(address)
            && TcpListener::bind(address).is_ok()
        {
            TAKEN.lock().expect("nothing fails while it is held").push(taken);
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_used_yet_is_not_given_again() {
        let ports = || (0..50).map(|_| free_port().unwrap()).collect::<Vec<_>>();
        let takers: Vec<_> = (0..4).map(|_| std::thread::spawn(ports)).collect();
        let mut ports: Vec<u16> = takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 200);
    }
}
