//! Statements: each is parsed, resolved against the catalog, and handed to the part that does it.

pub(crate) mod convert;

use std::sync::Arc;

use tdengine_sql::ast::{self, AlterAction, Statement};

use crate::database::{Database, Topic, TopicKind, TopicMeta};
use crate::ddl::AlterKind;
use crate::ddl::database::{DatabaseOption, is_system};
use crate::ddl::stable::CreateStable;
use crate::ddl::table::{CreateKind, CreateTable, DropTable};
use crate::ddl::topic::database_unavailable;
use crate::error::{Result, ServerError, code};
use crate::result::Outcome;
use crate::schema::Stable;
use crate::session::Session;
use crate::store::Store;
use crate::store::inner::{Inner, now_ms};
use crate::catalog::Change;
use crate::{dml, users};

impl From<tdengine_sql::SyntaxError> for ServerError {
    fn from(error: tdengine_sql::SyntaxError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// Runs the first statement of `sql`.
pub(crate) fn execute(store: &Store, session: &mut Session, sql: &str) -> Result<Outcome> {
    let statement = tdengine_sql::parse(sql)?;
    let run = Run { inner: store.inner(), session, sql };
    let affected = match &statement {
        Statement::Select(_) | Statement::Show(_) | Statement::Describe(_) => {
            return crate::query::run(store, session, &statement).map(Outcome::Rows);
        }
        Statement::Use { database } => {
            if !is_system(database) {
                store.database(database)?;
            }
            session.database = Some(database.clone());
            0
        }
        Statement::Flush { database } => {
            store.flush_database(database)?;
            0
        }
        Statement::Insert(insert) => dml::insert::run(run.inner, session, sql, insert)?,
        Statement::InsertQuery(insert) => crate::query::insert::run(store, session, insert)?,
        Statement::Delete { table, condition } => dml::delete::run(run.inner, session, table, condition.as_ref())?,
        Statement::NoOperation(_) => 0,
        Statement::KillQuery(_) => return Err(ServerError::new(code::CONNECTION_INVALID, "Invalid connection id")),
        _ => {
            run.definition(&statement)?;
            0
        }
    };
    Ok(Outcome::Update { affected })
}

struct Run<'a> {
    inner: &'a Inner,
    session: &'a Session,
    sql: &'a str,
}

impl Run<'_> {
    fn definition(&self, statement: &Statement<'_>) -> Result<()> {
        match statement {
            Statement::CreateDatabase { name, if_not_exists, options } => {
                self.inner.create_database(name, *if_not_exists, &options_of(options))
            }
            Statement::AlterDatabase { name, options } => self.inner.alter_database(name, &options_of(options)),
            Statement::DropDatabase { name, if_exists } => self.inner.drop_database(name, *if_exists),
            Statement::CreateStable(create) => self.create_stable(create),
            Statement::CreateTables(tables) => self.create_tables(tables),
            Statement::DropStable { name, if_exists } => {
                self.inner.drop_stable(&*self.database(name)?, &name.table, *if_exists, 0)
            }
            Statement::DropTables(tables) => self.drop_tables(tables),
            Statement::Alter { name, action, .. } => self.alter(name, action),
            Statement::CreateTopic(create) => self.create_topic(create),
            Statement::DropTopic { name, if_exists } => self.inner.drop_topic(name, *if_exists),
            Statement::CreateIndex { name, table, tags } => {
                self.inner.create_index(&*self.database(table)?, name, &table.table, tags)
            }
            Statement::DropIndex { name, if_exists } => {
                let database = match self.database(name) {
                    Err(error) if error.code == code::DATABASE_MISSING => None,
                    database => Some(database?),
                };
                self.inner.drop_index(database.as_deref(), &name.table, *if_exists)
            }
            Statement::DropConsumerGroup { group, topic, if_exists } => {
                self.inner.drop_group(group, topic, *if_exists)
            }
            Statement::CreateUser { name, password } => self.inner.change(|catalog| {
                if catalog.users.contains_key(name) {
                    return Err(ServerError::new(code::USER_EXISTS, "User already exists"));
                }
                Ok(Some(Change::PutUser(users::user(name, password, now_ms()))))
            }),
            Statement::AlterUser { name, password } => self.inner.change(|catalog| {
                let old = catalog.users.get(name).ok_or_else(invalid_user)?;
                let changed = |password: &String| crate::database::User {
                    password_hash: users::user(name, password, 0).password_hash,
                    ..(**old).clone()
                };
                Ok(password.as_ref().map(|password| Change::PutUser(changed(password))))
            }),
            Statement::DropUser { name } => self.inner.change(|catalog| {
                let user = catalog.users.get(name).filter(|user| !user.is_super).ok_or_else(invalid_user)?;
                Ok(Some(Change::DropUser { name: user.name.clone() }))
            }),
            _ => Err(ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported")),
        }
    }

    /// The database that a name belongs to.
    fn database(&self, name: &ast::Name) -> Result<Arc<Database>> {
        database_of(self.inner, self.session, name)
    }

    fn create_stable(&self, create: &ast::CreateStable) -> Result<()> {
        let database = self.database(&create.name)?;
        let request = CreateStable {
            name: create.name.table.clone(),
            if_not_exists: create.if_not_exists,
            columns: convert::columns(&create.columns)?,
            tags: convert::columns(&create.tags)?,
            comment: create.options.comment.clone(),
        };
        self.inner.create_stable(&database, &request, self.session.source)
    }

    fn create_tables(&self, tables: &[ast::CreateTable<'_>]) -> Result<()> {
        let table = |table: &ast::CreateTable<'_>| {
            let database = self.database(&table.name)?;
            let ttl_days = convert::ttl(&table.options);
            let comment = table.options.comment.clone();
            let kind = match &table.kind {
                ast::CreateKind::Normal(columns) => {
                    CreateKind::Normal { columns: convert::columns(columns)?, ttl_days, comment }
                }
                ast::CreateKind::Child(using) => {
                    let mut child = convert::child(self.inner, self.session, &database, using)?;
                    (child.ttl_days, child.comment) = (ttl_days, comment);
                    CreateKind::Child(child)
                }
            };
            let (name, if_not_exists) = (table.name.table.clone(), table.if_not_exists);
            Ok(CreateTable { database, name, if_not_exists, kind })
        };
        self.inner.create_tables(tables.iter().map(table).collect::<Result<_>>()?, self.session.source)
    }

    fn drop_tables(&self, tables: &[ast::DropTable]) -> Result<()> {
        let mut resolved = Vec::with_capacity(tables.len());
        for ast::DropTable { name, if_exists } in tables {
            match self.database(name) {
                Ok(database) => {
                    resolved.push(DropTable { database, name: name.table.clone(), if_exists: *if_exists });
                }
                Err(error) if error.code == code::DATABASE_MISSING && *if_exists => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.drop_tables(&resolved, 0)
    }

    fn alter(&self, name: &ast::Name, action: &AlterAction<'_>) -> Result<()> {
        let database = self.database(name)?;
        let is_stable = self.inner.catalog.read().stable(database.id, &name.table).is_some();
        if let AlterAction::SetTags(tags) = action {
            if is_stable {
                return Err(ServerError::new(code::INVALID_ALTER, "Set tag value only available for child table"));
            }
            let context = convert::context(&database, self.session);
            let changes = |stable: &Stable| convert::tag_changes(stable, tags, &context);
            return self.inner.set_tags(&database, &name.table, changes, self.session.source);
        }
        let kind = convert::alter(action)?;
        if let AlterKind::AddColumn(column) = &kind
            && !self.inner.config.version.has_batch_meta()
            && column.compression != Default::default()
        {
            // FACTS F16.
            return Err(ServerError::new(code::SYNTAX, "syntax error near \"encode\""));
        }
        if is_stable {
            return self.inner.alter_stable(&database, &name.table, &kind, self.sql, self.session.source);
        }
        self.inner.alter_table(&database, &name.table, &kind, self.session.source)
    }

    fn create_topic(&self, create: &ast::CreateTopic<'_>) -> Result<()> {
        self.inner.create_topic(&create.name, create.if_not_exists, || {
            let (database, kind, query) = self.topic_source(create)?;
            let meta = match create.meta {
                ast::TopicMeta::None => TopicMeta::None,
                ast::TopicMeta::With => TopicMeta::With,
                ast::TopicMeta::Only => TopicMeta::Only,
            };
            let (name, sql) = (create.name.clone(), self.sql.to_owned());
            Ok(Topic { name, database, kind, meta, created_ms: now_ms(), sql, query })
        })
    }

    fn topic_source(&self, create: &ast::CreateTopic<'_>) -> Result<(String, TopicKind, Option<String>)> {
        let unavailable = |error: ServerError| {
            if error.code == code::DATABASE_MISSING { database_unavailable() } else { error }
        };
        match &create.source {
            ast::TopicSource::Database(name) => {
                self.inner.database(name).ok_or_else(database_unavailable)?;
                Ok((name.clone(), TopicKind::Database, None))
            }
            ast::TopicSource::Stable { name, condition } => {
                let database = self.database(name).map_err(unavailable)?;
                let catalog = self.inner.catalog.read();
                let missing = || ServerError::new(code::STABLE_MISSING, "STable not exist");
                let stable = catalog.stable(database.id, &name.table).ok_or_else(missing)?;
                let condition = condition.map(str::to_owned);
                let kind = TopicKind::Stable { name: name.table.clone(), suid: stable.suid, condition };
                Ok((database.name.clone(), kind, None))
            }
            ast::TopicSource::Select(select) => {
                let Some(ast::From::Table { name, .. }) = &select.from else {
                    return Err(ServerError::new(code::INVALID_OPERATION, "Invalid topic query"));
                };
                let database = self.database(name).map_err(unavailable)?;
                let (table, columns) = convert::topic_columns(self.inner, &database, &name.table, select)?;
                Ok((database.name.clone(), TopicKind::Select { table, columns }, Some(create.text.to_owned())))
            }
        }
    }
}

fn invalid_user() -> ServerError {
    ServerError::new(code::INVALID_USER, "Invalid user")
}

fn options_of(options: &[ast::DatabaseOption]) -> Vec<DatabaseOption> {
    options.iter().map(|option| (option.name.clone(), option.value.clone())).collect()
}

/// The database that a name belongs to: its own, or that of the session.
pub(crate) fn database_of(inner: &Inner, session: &Session, name: &ast::Name) -> Result<Arc<Database>> {
    let database = name.database.as_ref().or(session.database.as_ref()).ok_or_else(ServerError::database_not_specified)?;
    if is_system(database) {
        return Err(ServerError::new(code::VNODE_CLOSED, "Vnode is closed or removed"));
    }
    inner.database(database).ok_or_else(ServerError::database_missing)
}
