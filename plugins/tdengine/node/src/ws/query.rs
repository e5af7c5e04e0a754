//! Statements in SQL and the fetching of their rows, in the old form (JSON, one block at a time named beforehand) and the
//! new one (binary 6 and 7).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tdengine_store::{Outcome, ResultSet};
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::{
    BlockReply, Fetch, FetchBlock, FetchReply, FreeResult, NumFields, NumFieldsReply, Query, QueryReply, Request,
    ResultBlockReply, ValidateSqlReply,
};

use super::Connection;
use crate::error::Fail;
use crate::reply::{Answer, Call, args};
use crate::socket::Frame;

/// Results of a connection that were neither read to their end nor freed.
#[derive(Debug)]
pub(super) struct Results {
    last_id: u64,
    open: HashMap<u64, Arc<OpenResult>>,
    open_max: usize,
}

#[derive(Debug)]
struct OpenResult {
    is_freed: AtomicBool,
    rows: Mutex<Rows>,
}

#[derive(Debug)]
struct Rows {
    set: ResultSet,
    /// What `fetch` named and `fetch_block` has to give.
    named: Option<Bytes>,
}

impl OpenResult {
    /// The rows, unless they were freed while the caller waited for another request on them.
    fn lock(&self) -> Result<MutexGuard<'_, Rows>, Fail> {
        let rows = self.rows.lock();
        match self.is_freed.load(Ordering::Acquire) {
            true => Err(Fail::protocol("result has been freed")),
            false => Ok(rows),
        }
    }
}

impl Results {
    pub fn new(open_max: usize) -> Self {
        Self { last_id: 0, open: HashMap::new(), open_max }
    }

    fn add(&mut self, set: ResultSet) -> Result<u64, Fail> {
        if self.open.len() >= self.open_max {
            let max = self.open_max;
            return Err(Fail::protocol(format!("{max} results are open (limits.results-per-connection); free some")));
        }
        self.last_id += 1;
        let result = OpenResult { is_freed: AtomicBool::new(false), rows: Mutex::new(Rows { set, named: None }) };
        self.open.insert(self.last_id, Arc::new(result));
        Ok(self.last_id)
    }

    fn get(&self, id: u64) -> Result<Arc<OpenResult>, Fail> {
        self.open.get(&id).cloned().ok_or_else(|| Fail::protocol("result is nil"))
    }

    fn free(&mut self, id: u64) {
        if let Some(result) = self.open.remove(&id) {
            result.is_freed.store(true, Ordering::Release);
        }
    }

    pub fn clear(&mut self) {
        self.open.clear();
    }
}

impl Connection {
    pub(super) async fn query(&self, call: &Call, request: &Request<'_>) -> Answer {
        let query: Query = args(request)?;
        self.query_sql(call, &query.sql).await
    }

    pub(super) async fn query_sql(&self, call: &Call, sql: &str) -> Answer {
        let reply = self.execute(sql.to_owned()).await?;
        call.json(&reply)
    }

    /// Runs a statement and opens its result.
    pub(super) async fn execute(&self, sql: String) -> Result<QueryReply, Fail> {
        let before = self.session()?;
        let mut session = before.clone();
        let work = move |shared: &crate::node::Shared| {
            let outcome = shared.store.execute(&mut session, &sql)?;
            Ok((outcome, session))
        };
        let (outcome, after) = self.shared.blocking(work).await?;
        self.keep(&before, after);
        self.open(outcome)
    }

    /// The reply to a statement; rows get a result id.
    pub(super) fn open(&self, outcome: Outcome) -> Result<QueryReply, Fail> {
        let mut reply = match outcome {
            Outcome::Update { affected } => QueryReply::update(affected as i64),
            Outcome::Rows(set) => self.open_rows(set)?,
        };
        if !self.shared.version.has_stmt2() {
            (reply.fields_precisions, reply.fields_scales) = (None, None);
        }
        Ok(reply)
    }

    fn open_rows(&self, set: ResultSet) -> Result<QueryReply, Fail> {
        let fields: Vec<_> = set.fields.iter().map(|field| (field.name.clone(), field.column_type)).collect();
        let precision = set.precision;
        let id = self.results.lock().add(set)?;
        Ok(QueryReply::rows(id, &fields, precision))
    }

    pub(super) fn num_fields(&self, call: &Call, request: &Request<'_>) -> Answer {
        let asked: NumFields = args(request)?;
        let result = self.results.lock().get(asked.result_id)?;
        let num_fields = result.lock()?.set.fields.len() as i64;
        call.json(&NumFieldsReply { num_fields })
    }

    pub(super) async fn fetch(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Fetch { id } = args(request)?;
        let result = self.results.lock().get(id)?;
        let block = self.shared.blocking(move |_| {
            let mut rows = result.lock()?;
            let block = rows.set.next_block()?;
            rows.named = block.clone();
            Ok(block)
        });
        let Some(block) = block.await? else {
            self.results.lock().free(id);
            return call.json(&FetchReply { id, completed: true, lengths: None, rows: 0 });
        };
        let view = BlockView::parse(&block)?;
        let lengths = view.columns().iter().map(|column| i64::from(column.column_type().bytes)).collect();
        call.json(&FetchReply { id, completed: false, lengths: Some(lengths), rows: view.rows() as i64 })
    }

    pub(super) fn fetch_block(&self, call: &Call, request: &Request<'_>) -> Answer {
        let FetchBlock { id } = args(request)?;
        let result = self.results.lock().get(id)?;
        let block = result.lock()?.named.clone().ok_or_else(|| Fail::protocol("block is nil"))?;
        let reply = BlockReply { timing: call.timing(), req_id: None, id, block: &block };
        Ok(Some(Frame::Binary(reply.encode().into())))
    }

    pub(super) fn free_result(&self, request: &Request<'_>) -> Answer {
        if let Ok(FreeResult { id }) = args(request) {
            self.results.lock().free(id);
        }
        Ok(None)
    }

    pub(super) async fn fetch_raw_block(&self, call: &Call, id: u64) -> Answer {
        let result = self.results.lock().get(id)?;
        let block = self.shared.blocking(move |_| Ok(result.lock()?.set.next_block()?)).await?;
        if block.is_none() {
            self.results.lock().free(id);
        }
        let (timing, req_id) = (call.timing(), call.req_id);
        let reply =
            ResultBlockReply { timing, req_id, code: 0, message: "", result_id: id, block: block.as_deref() };
        Ok(Some(Frame::Binary(reply.encode().into())))
    }

    /// Whether a statement can be read; it is not run.
    pub(super) fn validate(&self, call: &Call, sql: &str) -> Answer {
        let result_code = tdengine_sql::parse(sql).err().map_or(0, |error| i64::from(error.code));
        call.json(&ValidateSqlReply { result_code })
    }
}

#[cfg(test)]
mod tests {
    use tdengine_wire::Precision;

    use super::*;

    /// A fetch that waited for its turn while the result was freed.
    #[test]
    fn a_freed_result_says_so_to_who_still_holds_it_and_is_nil_to_others() {
        let mut results = Results::new(2);
        let empty = || ResultSet::new(Vec::new(), Precision::Milliseconds, std::iter::empty());
        let ids = [results.add(empty()).unwrap(), results.add(empty()).unwrap()];
        assert_eq!(ids, [1, 2]);
        let text = |fail: Fail| (fail.code, fail.message.into_owned());
        let refused = text(results.add(empty()).unwrap_err());
        assert!(refused.1.contains("limits.results-per-connection"), "{refused:?}");
        let held = results.get(1).unwrap();
        results.free(1);
        assert_eq!(text(held.lock().map(drop).unwrap_err()), (0xffff, "result has been freed".to_owned()));
        assert_eq!(text(results.get(1).map(drop).unwrap_err()), (0xffff, "result is nil".to_owned()));
        assert_eq!(results.add(empty()).unwrap(), 3, "an id is not given again");
    }
}
