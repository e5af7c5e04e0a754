//! CREATE and DROP.

use super::{Parser, Result, TABLE_NAME_MAX, no_dot};
use crate::ast::*;
use crate::error::SyntaxError;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn create(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        if self.take_word("database")? {
            let if_not_exists = self.if_not_exists()?;
            let name = self.database_name()?;
            no_dot("database", &name)?;
            return Ok(Statement::CreateDatabase { name, if_not_exists, options: self.database_options(&CREATE_OPTIONS)? });
        }
        if self.take_word("stable")? {
            return self.create_stable();
        }
        if self.take_word("table")? {
            return self.create_tables();
        }
        if self.take_word("topic")? {
            return self.create_topic();
        }
        if self.take_word("index")? {
            // IF NOT EXISTS is read and has no effect.
            self.if_not_exists()?;
            let name = self.identifier(TABLE_NAME_MAX)?;
            self.expect_word("on")?;
            return Ok(Statement::CreateIndex { name, table: self.table_name()?, tags: self.name_list()? });
        }
        if self.take_word("user")? {
            let name = self.identifier(TABLE_NAME_MAX)?;
            self.expect_word("pass")?;
            let password = self.string()?;
            self.skip_rest()?;
            return Ok(Statement::CreateUser { name, password });
        }
        Err(self.near())
    }

    pub(super) fn drop(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        if self.take_word("database")? {
            let if_exists = self.if_exists()?;
            return Ok(Statement::DropDatabase { if_exists, name: self.database_name()? });
        }
        if self.take_word("stable")? {
            let if_exists = self.if_exists()?;
            return Ok(Statement::DropStable { if_exists, name: self.table_name()? });
        }
        if self.take_word("table")? {
            let mut tables = Vec::new();
            loop {
                let if_exists = self.if_exists()?;
                tables.push(DropTable { if_exists, name: self.table_name()? });
                if !self.take_comma()? {
                    return Ok(Statement::DropTables(tables));
                }
            }
        }
        if self.take_word("topic")? {
            let if_exists = self.if_exists()?;
            return Ok(Statement::DropTopic { if_exists, name: self.identifier(TABLE_NAME_MAX)? });
        }
        if self.take_word("consumer")? {
            self.expect_word("group")?;
            let if_exists = self.if_exists()?;
            let group = self.identifier(TABLE_NAME_MAX)?;
            self.expect_word("on")?;
            return Ok(Statement::DropConsumerGroup { group, if_exists, topic: self.identifier(TABLE_NAME_MAX)? });
        }
        if self.take_word("index")? {
            let if_exists = self.if_exists()?;
            return Ok(Statement::DropIndex { if_exists, name: self.table_name()? });
        }
        if self.take_word("user")? {
            return Ok(Statement::DropUser { name: self.identifier(TABLE_NAME_MAX)? });
        }
        Err(self.near())
    }

    fn create_stable(&mut self) -> Result<Statement<'a>> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.new_table_name()?;
        let columns = self.columns()?;
        self.expect_word("tags")?;
        let tags = self.columns()?;
        let options = self.table_options()?;
        Ok(Statement::CreateStable(CreateStable { name, if_not_exists, columns, tags, options }))
    }

    /// CREATE TABLE: a normal table, children, or, with TAGS and columns, a super table.
    fn create_tables(&mut self) -> Result<Statement<'a>> {
        let mut tables = Vec::new();
        loop {
            let if_not_exists = self.if_not_exists()?;
            let name = self.new_table_name()?;
            let kind = if self.is_word("using") {
                CreateKind::Child(self.using()?)
            } else {
                let columns = self.columns()?;
                if self.take_word("tags")? {
                    let tags = self.columns()?;
                    let options = self.table_options()?;
                    return Ok(Statement::CreateStable(CreateStable { name, if_not_exists, columns, tags, options }));
                }
                CreateKind::Normal(columns)
            };
            let child = matches!(kind, CreateKind::Child(_));
            let options = self.table_options()?;
            tables.push(CreateTable { name, if_not_exists, kind, options });
            let more = child && !matches!(self.token, Token::End | Token::Mark(";"));
            if !more {
                return Ok(Statement::CreateTables(tables));
            }
        }
    }

    /// `USING stable [(names)] TAGS (values)`.
    pub(super) fn using(&mut self) -> Result<Using<'a>> {
        self.expect_word("using")?;
        let stable = self.table_name()?;
        let tags = if self.is_mark("(") { Some(self.name_list()?) } else { None };
        self.expect_word("tags")?;
        self.expect_mark("(")?;
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            if !self.take_comma()? {
                break;
            }
        }
        let end = self.at;
        self.expect_mark(")")?;
        Ok(Using { stable, tags, values, end })
    }

    pub(super) fn name_list(&mut self) -> Result<Vec<String>> {
        self.expect_mark("(")?;
        let mut names = Vec::new();
        loop {
            names.push(self.column_name()?);
            if !self.take_comma()? {
                break;
            }
        }
        self.expect_mark(")")?;
        Ok(names)
    }

    fn columns(&mut self) -> Result<Vec<Column>> {
        self.expect_mark("(")?;
        let mut columns = Vec::new();
        loop {
            columns.push(self.column()?);
            if !self.take_comma()? {
                break;
            }
        }
        self.expect_mark(")")?;
        Ok(columns)
    }

    pub(super) fn column(&mut self) -> Result<Column> {
        let name = self.new_column_name()?;
        let data_type = self.data_type()?;
        let mut column =
            Column { name, data_type, primary_key: false, encode: None, compress: None, level: None, comment: None };
        loop {
            if self.take_word("primary")? || self.take_word("composite")? {
                self.expect_word("key")?;
                column.primary_key = true;
            } else if self.take_word("encode")? {
                column.encode = Some(self.string()?);
            } else if self.take_word("compress")? {
                column.compress = Some(self.string()?);
            } else if self.take_word("level")? {
                column.level = Some(self.string()?);
            } else if self.take_word("comment")? {
                column.comment = Some(self.string()?);
            } else {
                return Ok(column);
            }
        }
    }

    pub(super) fn table_options(&mut self) -> Result<TableOptions> {
        let mut options = TableOptions::default();
        loop {
            if self.take_word("comment")? {
                options.comment = Some(self.string()?);
            } else if self.take_word("ttl")? {
                options.ttl_days = Some(self.signed()?);
            } else if self.take_word("watermark")? || self.take_word("max_delay")? || self.take_word("sma")? || self.take_word("rollup")? {
                self.skip_option_value()?;
            } else {
                return Ok(options);
            }
        }
    }

    fn skip_option_value(&mut self) -> Result<()> {
        let bracketed = self.take_mark("(")?;
        self.advance()?;
        while self.take_comma()? {
            self.advance()?;
        }
        if bracketed { self.expect_mark(")") } else { Ok(()) }
    }

    pub(super) fn database_options(&mut self, allowed: &[&str]) -> Result<Vec<DatabaseOption>> {
        let mut options = Vec::new();
        while let Token::Word(word) = self.token {
            let name = word.to_ascii_lowercase();
            if !allowed.contains(&name.as_str()) {
                return Err(self.near());
            }
            self.advance()?;
            let mut value = self.option_value()?;
            while self.take_comma()? {
                value.push(',');
                value.push_str(&self.option_value()?);
            }
            options.push(DatabaseOption { name, value });
        }
        Ok(options)
    }

    fn option_value(&mut self) -> Result<String> {
        let negative = self.take_mark("-")?;
        let value = match self.token {
            Token::Number(text) | Token::Duration(text) | Token::Word(text) => text.to_owned(),
            Token::Text(text) => unescape(text).into_owned(),
            _ => return Err(self.near()),
        };
        self.advance()?;
        Ok(if negative { format!("-{value}") } else { value })
    }

    fn create_topic(&mut self) -> Result<Statement<'a>> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.identifier(TABLE_NAME_MAX)?;
        let meta = if self.take_word("with")? {
            self.expect_word("meta")?;
            TopicMeta::With
        } else if self.take_word("only")? {
            self.expect_word("meta")?;
            TopicMeta::Only
        } else {
            TopicMeta::None
        };
        self.expect_word("as")?;
        let start = self.at;
        let source = if self.take_word("database")? {
            TopicSource::Database(self.database_name()?)
        } else if self.take_word("stable")? {
            let name = self.table_name()?;
            let condition = if self.take_word("where")? { Some(self.condition_text()?) } else { None };
            TopicSource::Stable { name, condition }
        } else if self.is_word("select") {
            if meta != TopicMeta::None {
                return Err(SyntaxError::near(&self.text[start..]));
            }
            TopicSource::Select(Box::new(self.select()?))
        } else {
            return Err(self.near());
        };
        let text = self.text[start..self.at].trim_end();
        Ok(Statement::CreateTopic(CreateTopic { name, if_not_exists, meta, source, text }))
    }
}

impl<'a> Parser<'a> {
    fn condition_text(&mut self) -> Result<&'a str> {
        let start = self.at;
        self.expr()?;
        Ok(self.text[start..self.at].trim_end())
    }
}

/// Options of CREATE DATABASE.
pub(super) const CREATE_OPTIONS: [&str; 33] = [
    "buffer", "cachemodel", "cachesize", "comp", "duration", "days", "wal_fsync_period", "maxrows", "minrows", "keep",
    "pages", "pagesize", "tsdb_pagesize", "precision", "replica", "wal_level", "vgroups", "single_stable", "stt_trigger",
    "table_prefix", "table_suffix", "wal_retention_period", "wal_retention_size", "wal_roll_period", "wal_segment_size",
    "retentions", "schemaless", "strict", "keep_time_offset", "encrypt_algorithm", "s3_chunksize", "s3_keeplocal",
    "s3_compact",
];

/// Options of ALTER DATABASE.
pub(super) const ALTER_OPTIONS: [&str; 14] = [
    "buffer", "cachemodel", "cachesize", "wal_fsync_period", "keep", "pages", "replica", "wal_level", "stt_trigger",
    "minrows", "wal_retention_period", "wal_retention_size", "keep_time_offset", "s3_keeplocal",
];
