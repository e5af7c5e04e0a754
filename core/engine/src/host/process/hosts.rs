//! The hosts of a process's instances: what instances ask of them over the control connection, and the answers.

use std::collections::HashMap;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::{Error, Incident, Ready, Result};

use super::frame::{Codec, Packet, Word, joined, split};
use super::line::{receive_blocking, send_blocking};

/// What an instance asks for goes to these.
pub(super) struct HostEnd {
    pub parts: HostParts,
    pub ready: Option<Ready>,
}

pub(super) type HostEnds = Arc<Mutex<HashMap<u64, HostEnd>>>;

/// Answers what instances ask of their hosts, until the connection closes.
pub(super) fn answer(stream: UnixStream, ends: &HostEnds, limit: u64) {
    let mut codec = Codec::new(limit);
    let mut stream = BufReader::new(stream);
    while let Ok(asked) = receive_blocking(&mut stream, &mut codec) {
        let answered = match asked.word {
            Word::Released => {
                let released = ends.lock().remove(&asked.number);
                drop(released);
                Ok(None)
            }
            Word::Ready => {
                let ready = ends.lock().get_mut(&asked.number).and_then(|end| end.ready.take());
                ready.into_iter().for_each(|mut ready| ready.ready());
                Ok(None)
            }
            _ => {
                let parts = ends.lock().get(&asked.number).map(|end| end.parts.clone());
                parts.ok_or_else(|| Error::fatal("the instance is not known")).and_then(|parts| carry_out(&parts, &asked))
            }
        };
        let failed = |error: Error| (Word::Failed, 0, serde_json::to_vec(&error).expect("an error is plain JSON"));
        let (word, number, text) = match answered {
            Ok(Some((number, text))) => (Word::Done, number, text),
            Err(error) if asked.word.is_question() => failed(error),
            Ok(None) | Err(_) => continue,
        };
        let answer = codec.encode(word, number, &text, &[]).or_else(|error| {
            let (word, number, text) = failed(error);
            codec.encode(word, number, &text, &[])
        });
        if answer.is_ok_and(|answer| send_blocking(stream.get_mut(), answer).is_err()) {
            break;
        }
    }
    // Hosts are given back though the instances could not do it.
    ends.lock().clear();
}

/// The answer's number and text, where the question wants one.
fn carry_out(parts: &HostParts, asked: &Packet) -> Result<Option<(u64, Vec<u8>)>> {
    let (host, text) = (&parts.host, |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned());
    let array = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    match asked.word {
        Word::Log => {
            let [level, target, message, fields] = split(&asked.text)?;
            (parts.log)(array(level) as u32, &text(target), &text(message), &text(fields));
        }
        Word::Counter => {
            let [name, add] = split(&asked.text)?;
            host.counter(&text(name), array(add));
        }
        Word::Gauge => {
            let [name, value] = split(&asked.text)?;
            host.gauge(&text(name), f64::from_bits(array(value)));
        }
        Word::Incident => host.incident(&asked.json::<Incident>()?),
        Word::StateGet => {
            let [shared, key] = split(&asked.text)?;
            let value = host.state_get(!shared.is_empty(), &text(key))?;
            return Ok(Some((value.is_some().into(), value.unwrap_or_default())));
        }
        Word::StatePut => {
            let [shared, key, exists, value] = split(&asked.text)?;
            host.state_put(!shared.is_empty(), &text(key), (!exists.is_empty()).then_some(value))?;
            return Ok(Some((0, Vec::new())));
        }
        Word::StateKeys => {
            let [shared, prefix] = split(&asked.text)?;
            let keys = host.state_keys(!shared.is_empty(), &text(prefix))?;
            let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            return Ok(Some((keys.len() as u64, joined(&keys))));
        }
        Word::IsCancelled => return Ok(Some((host.is_cancelled().into(), Vec::new()))),
        _ => {}
    }
    Ok(None)
}
