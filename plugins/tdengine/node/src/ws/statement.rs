//! The actions of prepared statements, version 1 and version 2, and of schemaless inserts.

use tdengine_store::{Session, Store};
use tdengine_wire::envelope::{
    Insert, InsertReply, QueryReply, Request, Stmt2Close, Stmt2Exec, Stmt2Init, Stmt2Prepare, Stmt2PrepareReply,
    Stmt2Result, Stmt2ResultReply, StmtAddBatch, StmtBind, StmtClose, StmtExec, StmtExecReply, StmtFieldsReply,
    StmtGetColFields, StmtGetParam, StmtGetParamReply, StmtGetTagFields, StmtNumParams, StmtNumParamsReply, StmtPrepare,
    StmtPrepareReply, StmtReply, StmtSetTableName, StmtSetTags, StmtUseResult, StmtUseResultReply,
};

use super::Connection;
use crate::error::Fail;
use crate::node::Shared;
use crate::reply::{Answer, Call, args};
use crate::schemaless;
use crate::statement::{Statement, Values, misuse};

impl Connection {
    /// Runs `work` on a statement, on a thread that may wait for the disk.
    async fn with_statement<T: Send + 'static>(
        &self,
        id: u64,
        work: impl FnOnce(&mut Statement, &Store, &Session) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, Fail> {
        let (statement, session) = (self.statements.get(id)?, self.session()?);
        let work = move |shared: &Shared| {
            let mut statement = statement.lock()?;
            work(&mut statement, &shared.store, &session)
        };
        self.shared.blocking(work).await
    }

    /// Actions of version 1.
    pub(super) async fn statement(&self, call: &Call, request: &Request<'_>) -> Answer {
        match &*request.action {
            "init" => call.json(&StmtReply { stmt_id: self.statements.open()? }),
            "prepare" => {
                let StmtPrepare { stmt_id, sql } = args(request)?;
                let is_insert = self.statements.get(stmt_id)?.lock()?.prepare(&sql)?;
                call.json(&StmtPrepareReply { stmt_id, is_insert })
            }
            "set_table_name" => {
                let StmtSetTableName { stmt_id, name } = args(request)?;
                self.statements.get(stmt_id)?.lock()?.set_table_name(name)?;
                call.json(&StmtReply { stmt_id })
            }
            "set_tags" => {
                let StmtSetTags { stmt_id, tags } = args(request)?;
                let tags = Values::Json(tags.into_iter().map(|tag| vec![tag]).collect());
                self.set_tags(call, stmt_id, tags).await
            }
            "bind" => {
                let StmtBind { stmt_id, columns } = args(request)?;
                self.bind(call, stmt_id, Values::Json(columns)).await
            }
            "add_batch" => {
                let StmtAddBatch { stmt_id } = args(request)?;
                self.statements.get(stmt_id)?.lock()?.add_batch()?;
                call.json(&StmtReply { stmt_id })
            }
            "exec" => {
                let StmtExec { stmt_id } = args(request)?;
                let affected = self.with_statement(stmt_id, Statement::execute).await?;
                call.json(&StmtExecReply { stmt_id, affected: affected as i64 })
            }
            "close" => {
                if let Ok(StmtClose { stmt_id }) = args(request) {
                    self.statements.close(stmt_id);
                }
                Ok(None)
            }
            _ => self.ask_statement(call, request).await,
        }
    }

    /// Actions of version 1 that only ask.
    async fn ask_statement(&self, call: &Call, request: &Request<'_>) -> Answer {
        match &*request.action {
            "get_tag_fields" => {
                let StmtGetTagFields { stmt_id } = args(request)?;
                let fields = self.with_statement(stmt_id, |statement, store, session| statement.tag_fields(store, session));
                call.json(&StmtFieldsReply { stmt_id, fields: Some(fields.await?) })
            }
            "get_col_fields" => {
                let StmtGetColFields { stmt_id } = args(request)?;
                let fields = |statement: &mut Statement, store: &Store, session: &Session| {
                    statement.column_fields(store, session)
                };
                let fields = Some(self.with_statement(stmt_id, fields).await?);
                call.json(&StmtFieldsReply { stmt_id, fields })
            }
            "stmt_num_params" => {
                let StmtNumParams { stmt_id } = args(request)?;
                let count = self.with_statement(stmt_id, |statement, store, session| statement.parameters(store, session));
                call.json(&StmtNumParamsReply { stmt_id, num_params: count.await? as i32 })
            }
            "stmt_get_param" => {
                let StmtGetParam { stmt_id, index } = args(request)?;
                let fields = |statement: &mut Statement, store: &Store, session: &Session| {
                    statement.column_fields(store, session)
                };
                let fields = self.with_statement(stmt_id, fields).await?;
                let field = usize::try_from(index).ok().and_then(|index| fields.get(index)).ok_or_else(misuse)?;
                let (data_type, length) = (i32::from(field.field_type), field.bytes);
                call.json(&StmtGetParamReply { stmt_id, index, data_type, length })
            }
            _ => {
                let StmtUseResult { stmt_id } = args(request)?;
                let mut fields = self.statement_result(stmt_id)?;
                let result_id = std::mem::take(&mut fields.id);
                call.json(&StmtUseResultReply { stmt_id, result_id, fields })
            }
        }
    }

    fn statement_result(&self, stmt_id: u64) -> Result<QueryReply, Fail> {
        let outcome = self.statements.get(stmt_id)?.lock()?.take_outcome()?;
        self.open(outcome)
    }

    async fn set_tags(&self, call: &Call, stmt_id: u64, tags: Values) -> Answer {
        self.with_statement(stmt_id, move |statement, store, session| statement.set_tags(store, session, &tags)).await?;
        call.json(&StmtReply { stmt_id })
    }

    async fn bind(&self, call: &Call, stmt_id: u64, columns: Values) -> Answer {
        self.with_statement(stmt_id, move |statement, store, session| statement.bind(store, session, &columns)).await?;
        call.json(&StmtReply { stmt_id })
    }

    pub(super) async fn statement_tags(&self, call: &Call, stmt_id: u64, block: &[u8]) -> Answer {
        self.set_tags(call, stmt_id, Values::Block(block.to_vec())).await
    }

    pub(super) async fn statement_bind(&self, call: &Call, stmt_id: u64, block: &[u8]) -> Answer {
        self.bind(call, stmt_id, Values::Block(block.to_vec())).await
    }

    /// Actions of version 2.
    pub(super) async fn statement2(&self, call: &Call, request: &Request<'_>) -> Answer {
        match &*request.action {
            "stmt2_init" => {
                let Stmt2Init { .. } = args(request)?;
                call.json(&StmtReply { stmt_id: self.statements.open()? })
            }
            "stmt2_prepare" => {
                let Stmt2Prepare { stmt_id, sql, get_fields } = args(request)?;
                let prepare = move |statement: &mut Statement, store: &Store, session: &Session| {
                    let is_insert = statement.prepare(&sql)?;
                    let (count, fields) = statement.parameter_fields(store, session, get_fields)?;
                    Ok(Stmt2PrepareReply { stmt_id, is_insert, fields, fields_count: count as i32 })
                };
                call.json(&self.with_statement(stmt_id, prepare).await?)
            }
            "stmt2_exec" => {
                let Stmt2Exec { stmt_id } = args(request)?;
                let affected = self.with_statement(stmt_id, Statement::execute2).await?;
                call.json(&StmtExecReply { stmt_id, affected: affected as i64 })
            }
            "stmt2_result" => {
                let Stmt2Result { stmt_id } = args(request)?;
                call.json(&Stmt2ResultReply { stmt_id, result: self.statement_result(stmt_id)? })
            }
            "stmt2_close" => {
                let Stmt2Close { stmt_id } = args(request)?;
                self.statements.close(stmt_id);
                call.json(&StmtReply { stmt_id })
            }
            action => Err(Fail::protocol(format!("unknown action {action}"))),
        }
    }

    pub(super) async fn statement2_bind(&self, call: &Call, stmt_id: u64, column: i32, data: &[u8]) -> Answer {
        const ALL: i32 = -1;
        if column != ALL {
            return Err(Fail::protocol("binding one column at a time is not supported; bind all with column -1"));
        }
        let data = data.to_vec();
        self.with_statement(stmt_id, move |statement, store, session| statement.bind2(store, session, &data)).await?;
        call.json(&StmtReply { stmt_id })
    }

    pub(super) async fn statement2_bind_exec(&self, call: &Call, stmt_id: u64, data: &[u8]) -> Answer {
        let data = data.to_vec();
        let work = move |statement: &mut Statement, store: &Store, session: &Session| {
            statement.bind_rows(store, session, &data)?;
            statement.execute2(store, session)
        };
        let affected = self.with_statement(stmt_id, work).await? as i64;
        call.json(&StmtExecReply { stmt_id, affected })
    }

    /// Schemaless lines.
    pub(super) async fn insert(&self, call: &Call, request: &Request<'_>) -> Answer {
        let (insert, session): (Insert, Session) = (args(request)?, self.session()?);
        let written =
            self.shared.blocking(move |shared| schemaless::insert(&shared.store, &session, &insert)).await?;
        let counts = self.shared.version.has_stmt2().then_some(written);
        call.json(&InsertReply {
            affected_rows: counts.map(|written| written.affected_rows as i64),
            total_rows: counts.map(|written| written.total_rows as i64),
        })
    }
}
