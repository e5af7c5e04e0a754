//! Safe handles over libtaos's pointers: a session, a result, a consumer.
//!
//! Each frees itself. What libtaos lends (fields, blocks, raw messages, JSON) is copied before the call returns.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

use bytes::Bytes;
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::{AssignedVgroup, NEVER_COMMITTED, WriteField, message_type};

use super::library::{Functions, RawAssignment, RawData, RawField};
use crate::client::{ClientError, Message, Result};

/// `u32 length, u16 type` before the body of a raw message.
const RAW_HEAD_BYTES: usize = 6;
const NAME_BYTES: usize = 65;
const ERROR_BYTES: usize = 512;

/// A connection.
pub struct Session {
    functions: Functions,
    pointer: NonNull<c_void>,
}

// SAFETY: libtaos allows a connection to be used from any thread, and from several at once.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `taos_connect`, and no result of it outlives its call here.
        unsafe { (self.functions.taos_close)(self.pointer.as_ptr()) };
    }
}

/// Whom to connect to and as whom.
pub struct Login<'a> {
    pub host: &'a str,
    pub port: u16,
    pub user: &'a str,
    pub password: &'a str,
    pub database: Option<&'a str>,
}

/// A result's head; the blocks went to the caller.
pub struct ResultHead {
    pub is_update: bool,
    pub affected_rows: i64,
    pub precision: i64,
    /// Name, type code, width.
    pub fields: Vec<(String, u8, i64)>,
}

impl Session {
    pub fn connect(functions: Functions, login: &Login<'_>) -> Result<Self> {
        let (host, user) = (c_text("host", login.host)?, c_text("user", login.user)?);
        let password = c_text("password", login.password)?;
        let database = login.database.map(|name| c_text("database", name)).transpose()?;
        let database = database.as_ref().map_or(null(), |name| name.as_ptr());
        // SAFETY: all texts end with NUL and live over the call; libtaos copies them.
        let pointer = unsafe {
            (functions.taos_connect)(host.as_ptr(), user.as_ptr(), password.as_ptr(), database, login.port)
        };
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { functions, pointer }),
            None => Err(result_error(&functions, null_mut(), "connect")),
        }
    }

    /// Runs a statement; `each` gets every block, copied, and says whether it wants another.
    pub fn query(
        &self,
        sql: &str,
        action: &str,
        mut each: impl FnMut(&ResultHead, Bytes) -> bool,
    ) -> Result<ResultHead> {
        let functions = &self.functions;
        let text = c_text(action, sql)?;
        // SAFETY: the connection is open, the text ends with NUL and lives over the call.
        let pointer = unsafe { (functions.taos_query)(self.pointer.as_ptr(), text.as_ptr()) };
        let Some(pointer) = NonNull::new(pointer) else { return Err(result_error(functions, null_mut(), action)) };
        let result = QueryResult { functions, pointer };
        result.check(action)?;
        let head = result.head();
        if !head.is_update {
            while let Some(block) = result.next_block(action)? {
                if !each(&head, block) {
                    break;
                }
            }
        }
        Ok(head)
    }

    /// `raw` is `u32 length, u16 type, body`; libtaos turns some numbers in it round in place.
    pub fn write_raw(&self, raw: &mut [u8]) -> Result<()> {
        let short = || ClientError::unexpected("write_raw", "the message is shorter than it says");
        let (head, body) = raw.split_at_mut_checked(RAW_HEAD_BYTES).ok_or_else(short)?;
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        let kind = u16::from_le_bytes(head[4..].try_into().expect("two bytes"));
        let body = body.get_mut(..length as usize).ok_or_else(short)?;
        let data = RawData { data: body.as_mut_ptr().cast(), length, kind };
        // SAFETY: the connection is open; the body is as long as told and ours alone over the call.
        let code = unsafe { (self.functions.tmq_write_raw)(self.pointer.as_ptr(), data) };
        checked(&self.functions, code, "write_raw")
    }

    pub fn write_block(&self, table: &str, block: &mut [u8], fields: &[WriteField]) -> Result<()> {
        const ACTION: &str = "write_raw_block_with_fields";
        // Every length in the block is checked here: libtaos believes them.
        let rows = BlockView::parse(block)?.rows();
        let table = c_text(ACTION, table)?;
        let fields: Vec<RawField> = fields.iter().map(raw_field).collect::<Result<_>>()?;
        // SAFETY: the connection is open; block, name and fields live over the call, and the block was checked.
        let code = unsafe {
            (self.functions.taos_write_raw_block_with_fields)(
                self.pointer.as_ptr(),
                rows as c_int,
                block.as_mut_ptr(),
                table.as_ptr(),
                fields.as_ptr(),
                fields.len() as c_int,
            )
        };
        checked(&self.functions, code, ACTION)
    }
}

struct QueryResult<'a> {
    functions: &'a Functions,
    pointer: NonNull<c_void>,
}

impl Drop for QueryResult<'_> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a query or a poll and is freed once.
        unsafe { (self.functions.taos_free_result)(self.pointer.as_ptr()) };
    }
}

impl QueryResult<'_> {
    fn check(&self, action: &str) -> Result<()> {
        // SAFETY: the result is not freed yet; so in the calls below.
        match unsafe { (self.functions.taos_errno)(self.pointer.as_ptr()) } {
            0 => Ok(()),
            _ => Err(result_error(self.functions, self.pointer.as_ptr(), action)),
        }
    }

    fn head(&self) -> ResultHead {
        let (functions, pointer) = (self.functions, self.pointer.as_ptr());
        // SAFETY: see `check`; the fields are as many as told and live as long as the result.
        unsafe {
            let count = (functions.taos_num_fields)(pointer).max(0) as usize;
            let fields = (functions.taos_fetch_fields)(pointer);
            let fields = if fields.is_null() { &[][..] } else { std::slice::from_raw_parts(fields, count) };
            ResultHead {
                is_update: (functions.taos_is_update_query)(pointer),
                affected_rows: (functions.taos_affected_rows64)(pointer),
                precision: i64::from((functions.taos_result_precision)(pointer)),
                fields: fields.iter().map(|it| (field_name(it), it.type_code as u8, i64::from(it.bytes))).collect(),
            }
        }
    }

    fn next_block(&self, action: &str) -> Result<Option<Bytes>> {
        let (mut rows, mut data) = (0, null_mut());
        // SAFETY: see `check`; both places are ours.
        let code = unsafe { (self.functions.taos_fetch_raw_block)(self.pointer.as_ptr(), &mut rows, &mut data) };
        if code != 0 {
            return Err(result_error(self.functions, self.pointer.as_ptr(), action));
        }
        if rows <= 0 || data.is_null() {
            return Ok(None);
        }
        // SAFETY: a block begins with version and length, both i32; its length is that of the whole (PROTOCOL 5).
        let block = unsafe {
            let length = data.cast::<i32>().add(1).read_unaligned().max(0) as usize;
            std::slice::from_raw_parts(data.cast::<u8>(), length)
        };
        Ok(Some(Bytes::copy_from_slice(block)))
    }
}

/// A consumer of one topic. One call at a time: the caller keeps it behind a lock.
pub struct Consumer {
    functions: Functions,
    pointer: NonNull<c_void>,
    topic: CString,
}

// SAFETY: libtaos ties a consumer to no thread; calls are made one at a time.
unsafe impl Send for Consumer {}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `tmq_consumer_new`; no message of it outlives its call here.
        unsafe { (self.functions.tmq_consumer_close)(self.pointer.as_ptr()) };
    }
}

impl Consumer {
    /// Makes a consumer with these settings and subscribes it to `topic`.
    pub fn subscribe(functions: Functions, settings: &[(&str, &str)], topic: &str) -> Result<Self> {
        let topic = c_text("topic", topic)?;
        let consumer = Self { pointer: new_consumer(&functions, settings)?, functions, topic };
        // SAFETY: the list is made, filled and freed here; libtaos copies the names.
        let code = unsafe {
            let list = (functions.tmq_list_new)();
            let appended = (functions.tmq_list_append)(list, consumer.topic.as_ptr());
            let code =
                if appended == 0 { (functions.tmq_subscribe)(consumer.pointer.as_ptr(), list) } else { appended };
            (functions.tmq_list_destroy)(list);
            code
        };
        checked(&functions, code, "subscribe")?;
        Ok(consumer)
    }

    /// Waits up to `wait_ms` for a message and copies it.
    pub fn poll(&mut self, wait_ms: i64) -> Result<Option<Message>> {
        // SAFETY: the consumer is open, and this is the only call; so in all calls below.
        let pointer = unsafe { (self.functions.tmq_consumer_poll)(self.pointer.as_ptr(), wait_ms) };
        let Some(pointer) = NonNull::new(pointer) else { return Ok(None) };
        let result = QueryResult { functions: &self.functions, pointer };
        self.message(&result).map(Some)
    }

    fn message(&self, result: &QueryResult<'_>) -> Result<Message> {
        let (functions, pointer) = (&self.functions, result.pointer.as_ptr());
        let mut data = RawData { data: null_mut(), length: 0, kind: 0 };
        // SAFETY: the message is not freed yet; so below.
        let code = unsafe { (functions.tmq_get_raw)(pointer, &mut data) };
        checked(functions, code, "fetch_raw")?;
        let mut raw = Vec::with_capacity(RAW_HEAD_BYTES + data.length as usize);
        raw.extend(data.length.to_le_bytes());
        raw.extend(data.kind.to_le_bytes());
        // SAFETY: `tmq_get_raw` lends `length` bytes until `tmq_free_raw`.
        unsafe {
            if !data.data.is_null() {
                raw.extend_from_slice(std::slice::from_raw_parts(data.data.cast::<u8>(), data.length as usize));
            }
            (functions.tmq_free_raw)(data);
        }
        // SAFETY: as above.
        let (kind, vgroup, offset) = unsafe {
            let kind = (functions.tmq_get_res_type)(pointer);
            (kind, (functions.tmq_get_vgroup_id)(pointer), (functions.tmq_get_vgroup_offset)(pointer))
        };
        let json = if kind == message_type::META { self.json(pointer) } else { None };
        Ok(Message { vgroup, kind, raw_type: data.kind, raw: raw.into(), json, offset })
    }

    fn json(&self, message: *mut c_void) -> Option<Box<str>> {
        // SAFETY: the text ends with NUL and is ours to free.
        unsafe {
            let text = (self.functions.tmq_get_json_meta)(message);
            if text.is_null() {
                return None;
            }
            let copy = CStr::from_ptr(text).to_string_lossy().into();
            (self.functions.tmq_free_json_meta)(text);
            Some(copy)
        }
    }

    pub fn assignment(&mut self) -> Result<Vec<AssignedVgroup>> {
        let (mut list, mut count) = (null_mut::<RawAssignment>(), 0);
        // SAFETY: see `poll`; both places are ours; the list is as long as told and ours to free.
        unsafe {
            let code = (self.functions.tmq_get_topic_assignment)(
                self.pointer.as_ptr(),
                self.topic.as_ptr(),
                &mut list,
                &mut count,
            );
            checked(&self.functions, code, "assignment")?;
            if list.is_null() {
                return Ok(Vec::new());
            }
            let assigned = std::slice::from_raw_parts(list, count.max(0) as usize).iter().map(|it| AssignedVgroup {
                vgroup_id: it.vgroup,
                offset: it.current,
                begin: it.begin,
                end: it.end,
            });
            let assigned = assigned.collect();
            (self.functions.tmq_free_assignment)(list);
            Ok(assigned)
        }
    }

    pub fn position(&mut self, vgroup: i32) -> Result<i64> {
        // SAFETY: see `poll`.
        let at = unsafe { (self.functions.tmq_position)(self.pointer.as_ptr(), self.topic.as_ptr(), vgroup) };
        self.offset(at, "position")
    }

    pub fn committed(&mut self, vgroup: i32) -> Result<i64> {
        // SAFETY: see `poll`.
        let at = unsafe { (self.functions.tmq_committed)(self.pointer.as_ptr(), self.topic.as_ptr(), vgroup) };
        self.offset(at, "committed")
    }

    pub fn commit_offset(&mut self, vgroup: i32, offset: i64) -> Result<()> {
        // SAFETY: see `poll`.
        let code = unsafe {
            (self.functions.tmq_commit_offset_sync)(self.pointer.as_ptr(), self.topic.as_ptr(), vgroup, offset)
        };
        checked(&self.functions, code, "commit_offset")
    }

    pub fn seek(&mut self, vgroup: i32, offset: i64) -> Result<()> {
        // SAFETY: see `poll`.
        let code =
            unsafe { (self.functions.tmq_offset_seek)(self.pointer.as_ptr(), self.topic.as_ptr(), vgroup, offset) };
        checked(&self.functions, code, "seek")
    }

    pub fn unsubscribe(&mut self) -> Result<()> {
        // SAFETY: see `poll`.
        let code = unsafe { (self.functions.tmq_unsubscribe)(self.pointer.as_ptr()) };
        checked(&self.functions, code, "unsubscribe")
    }

    /// An offset, or a code in its place.
    fn offset(&self, value: i64, action: &str) -> Result<i64> {
        if value >= 0 || value == NEVER_COMMITTED {
            return Ok(value);
        }
        checked(&self.functions, value as i32, action).map(|()| value)
    }
}

fn new_consumer(functions: &Functions, settings: &[(&str, &str)]) -> Result<NonNull<c_void>> {
    const ACTION: &str = "subscribe";
    let texts: Vec<(CString, CString)> =
        settings.iter().map(|(key, value)| Ok((c_text(key, key)?, c_text(key, value)?))).collect::<Result<_>>()?;
    let mut why = [0u8; ERROR_BYTES];
    // SAFETY: the configuration is made, filled and freed here; texts end with NUL; `why` is as long as told.
    let (refused, pointer) = unsafe {
        let conf = (functions.tmq_conf_new)();
        let refused = texts
            .iter()
            .position(|(key, value)| (functions.tmq_conf_set)(conf, key.as_ptr(), value.as_ptr()) != 0);
        let pointer = match refused {
            None => (functions.tmq_consumer_new)(conf, why.as_mut_ptr().cast::<c_char>(), ERROR_BYTES as i32 - 1),
            Some(_) => null_mut(),
        };
        (functions.tmq_conf_destroy)(conf);
        (refused, pointer)
    };
    if let Some(refused) = refused {
        let why = format!("this libtaos does not know the setting `{}`", settings[refused].0);
        return Err(ClientError::unexpected(ACTION, why));
    }
    NonNull::new(pointer).ok_or_else(|| {
        let error = result_error(functions, null_mut(), ACTION);
        let why = CStr::from_bytes_until_nul(&why).map(CStr::to_string_lossy).unwrap_or_default();
        match error.code() {
            Some(0) | None => ClientError::unexpected(ACTION, why),
            Some(code) => ClientError::server(ACTION, code, &why),
        }
    })
}

fn raw_field(field: &WriteField) -> Result<RawField> {
    let mut name = [0; NAME_BYTES];
    let bytes = field.name.as_bytes();
    if bytes.len() >= NAME_BYTES || bytes.contains(&0) {
        return Err(ClientError::unexpected("write_raw_block_with_fields", format!("column name {:?}", field.name)));
    }
    name[..bytes.len()].copy_from_slice(bytes);
    Ok(RawField { name, type_code: field.type_code as i8, bytes: field.bytes })
}

fn field_name(field: &RawField) -> String {
    CStr::from_bytes_until_nul(&field.name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn c_text(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| ClientError::unexpected(what, "it holds a NUL character"))
}

/// The error of a result, or of the last call of this thread for a null one.
fn result_error(functions: &Functions, result: *mut c_void, action: &str) -> ClientError {
    // SAFETY: null is allowed; the text ends with NUL and lives until the next call of this thread.
    let (code, text) = unsafe {
        let code = (functions.taos_errno)(result);
        (code, CStr::from_ptr((functions.taos_errstr)(result)).to_string_lossy().into_owned())
    };
    ClientError::server(action, code as u32, &text)
}

fn checked(functions: &Functions, code: i32, action: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: any code has a text, which is static or lives until the next call of this thread.
    let text = unsafe { CStr::from_ptr((functions.tmq_err2str)(code)) }.to_string_lossy().into_owned();
    Err(ClientError::server(action, code as u32, &text))
}
