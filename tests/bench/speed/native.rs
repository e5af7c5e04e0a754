//! A bare loop over libtaos: poll, write the message as it came, free it. What anybody would write in C.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use libloading::Library;
use pipeline_tdengine::log::{RAW_DATA, data::DataMessage};

use crate::bare::{Job, Rate, Window};
use crate::load::topic;

type Pointer = *mut c_void;
type Text = *const c_char;

/// `tmq_raw_data` of `taos.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawData {
    data: Pointer,
    length: u32,
    kind: u16,
}

const POLL_MS: i64 = 10;

pub fn run(job: &Job<'_>) -> Result<Rate> {
    let path = job.from.dsn.parameter("libraryPath").unwrap_or("libtaos.so");
    // SAFETY: libtaos is what the person who runs this names or installed.
    let library = unsafe { Library::new(path) }.with_context(|| path.to_owned())?;
    // SAFETY: the types below are those that `taos.h` declares; texts end with NUL and outlive the calls; every message is
    // freed once, after its raw form was given back.
    unsafe {
        if let Some(folder) = job.from.dsn.parameter("configDir") {
            let options = library.get::<unsafe extern "C" fn(c_int, *const c_void) -> c_int>(b"taos_options\0")?;
            options(3, CString::new(folder)?.as_ptr().cast());
        }
        let connect = library.get::<unsafe extern "C" fn(Text, Text, Text, Text, u16) -> Pointer>(b"taos_connect\0")?;
        let (to, target) = (&job.to.dsn, CString::new(job.target)?);
        let texts = [to.host.as_str(), &to.user, to.password()].map(CString::new);
        let [host, user, password] = texts;
        let connection = connect(host?.as_ptr(), user?.as_ptr(), password?.as_ptr(), target.as_ptr(), to.port);
        if connection.is_null() {
            bail!("taos_connect failed");
        }
        let consumer = consumer(&library, job)?;
        let poll = library.get::<unsafe extern "C" fn(Pointer, i64) -> Pointer>(b"tmq_consumer_poll\0")?;
        let get_raw = library.get::<unsafe extern "C" fn(Pointer, *mut RawData) -> i32>(b"tmq_get_raw\0")?;
        let free_raw = library.get::<unsafe extern "C" fn(RawData)>(b"tmq_free_raw\0")?;
        let free = library.get::<unsafe extern "C" fn(Pointer)>(b"taos_free_result\0")?;
        let write = library.get::<unsafe extern "C" fn(Pointer, RawData) -> i32>(b"tmq_write_raw\0")?;
        let (mut window, mut written) = (Window::new(job.rows), 0);
        let rate = loop {
            if let Some(rate) = window.note(written, Instant::now(), std::process::id())? {
                break rate;
            }
            let message = poll(consumer, POLL_MS);
            if message.is_null() {
                continue;
            }
            let mut raw = RawData { data: null_mut(), length: 0, kind: 0 };
            if get_raw(message, &mut raw) == 0 && raw.kind == RAW_DATA {
                let body = std::slice::from_raw_parts(raw.data.cast::<u8>(), raw.length as usize);
                let rows = DataMessage::parse(raw.kind, body)?.rows();
                let code = write(connection, raw);
                if code != 0 {
                    bail!("tmq_write_raw: {code:#x}");
                }
                written += rows;
                free_raw(raw);
            }
            free(message);
        };
        library.get::<unsafe extern "C" fn(Pointer) -> i32>(b"tmq_consumer_close\0")?(consumer);
        library.get::<unsafe extern "C" fn(Pointer)>(b"taos_close\0")?(connection);
        // It runs threads of its own.
        std::mem::forget(library);
        Ok(rate)
    }
}

/// # Safety
/// `library` is libtaos.
unsafe fn consumer(library: &Library, job: &Job<'_>) -> Result<Pointer> {
    // SAFETY: as in `run`.
    unsafe {
        let new = library.get::<unsafe extern "C" fn() -> Pointer>(b"tmq_conf_new\0")?;
        let set = library.get::<unsafe extern "C" fn(Pointer, Text, Text) -> c_int>(b"tmq_conf_set\0")?;
        let (conf, port) = (new(), job.from.dsn.port.to_string());
        for (key, value) in [
            ("td.connect.ip", job.from.dsn.host.as_str()),
            ("td.connect.port", &port),
            ("td.connect.user", &job.from.dsn.user),
            ("td.connect.pass", job.from.dsn.password()),
            ("group.id", &job.group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("msg.with.table.name", "true"),
            ("msg.consume.excluded", "1"),
        ] {
            if set(conf, CString::new(key)?.as_ptr(), CString::new(value)?.as_ptr()) != 0 {
                bail!("libtaos does not know the setting {key}");
            }
        }
        let make = library.get::<unsafe extern "C" fn(Pointer, *mut c_char, i32) -> Pointer>(b"tmq_consumer_new\0")?;
        let consumer = make(conf, null_mut(), 0);
        if consumer.is_null() {
            bail!("tmq_consumer_new failed");
        }
        let list = library.get::<unsafe extern "C" fn() -> Pointer>(b"tmq_list_new\0")?();
        let name = CString::new(topic(job.source))?;
        library.get::<unsafe extern "C" fn(Pointer, Text) -> i32>(b"tmq_list_append\0")?(list, name.as_ptr());
        let code = library.get::<unsafe extern "C" fn(Pointer, Pointer) -> i32>(b"tmq_subscribe\0")?(consumer, list);
        if code != 0 {
            bail!("tmq_subscribe: {code:#x}");
        }
        Ok(consumer)
    }
}
