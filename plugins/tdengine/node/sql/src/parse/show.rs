//! SHOW.

use super::{Parser, Result};
use crate::ast::*;
use crate::lexer::Token;

impl<'a> Parser<'a> {
    pub(super) fn show(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        self.show_kind().map(Statement::Show)
    }

    fn show_kind(&mut self) -> Result<Show<'a>> {
        if self.take_word("create")? {
            return self.show_create();
        }
        if self.take_word("table")? {
            self.expect_word("tags")?;
            self.expect_word("from")?;
            return Ok(Show::Tags { table: self.table_name()? });
        }
        if self.take_word("tags")? {
            self.expect_word("from")?;
            return Ok(Show::Tags { table: self.table_name()? });
        }
        if self.take_word("cluster")? {
            return Ok(if self.take_word("alive")? { Show::ClusterAlive } else { Show::Cluster });
        }
        if self.take_word("local")? {
            self.expect_word("variables")?;
            self.skip_rest()?;
            return Ok(Show::LocalVariables);
        }
        for (word, user) in [("user", true), ("system", false)] {
            if self.take_word(word)? {
                self.expect_word("databases")?;
                return Ok(Show::Databases { user });
            }
        }
        for (word, kind) in [("normal", TableKind::Normal), ("child", TableKind::Child)] {
            if self.take_word(word)? {
                self.expect_word("tables")?;
                let database = None;
                return Ok(Show::Tables { database, like: self.like()?, kind });
            }
        }
        self.show_list()
    }

    fn show_create(&mut self) -> Result<Show<'a>> {
        if self.take_word("database")? {
            return Ok(Show::CreateDatabase(self.database_name()?));
        }
        if self.take_word("stable")? {
            return Ok(Show::CreateStable(self.table_name()?));
        }
        self.expect_word("table")?;
        Ok(Show::CreateTable(self.table_name()?))
    }

    /// `[database.]tables` and the like.
    fn show_list(&mut self) -> Result<Show<'a>> {
        let Token::Word(word) = self.token else {
            if !matches!(self.token, Token::Quoted(_)) {
                return Err(self.near());
            }
            return self.show_of_database();
        };
        let show = match word.to_ascii_lowercase().as_str() {
            "databases" => Show::Databases { user: false },
            "tables" => {
                self.advance()?;
                return Ok(Show::Tables { database: None, like: self.like()?, kind: TableKind::All });
            }
            "stables" => {
                self.advance()?;
                return Ok(Show::Stables { database: None, like: self.like()? });
            }
            "vgroups" => {
                self.advance()?;
                return Ok(Show::Vgroups { database: self.from_database()? });
            }
            "topics" => Show::Topics,
            "consumers" => Show::Consumers,
            "subscriptions" => Show::Subscriptions,
            "dnodes" => Show::Dnodes,
            "mnodes" => Show::Mnodes,
            "qnodes" => Show::Qnodes,
            "snodes" => Show::Snodes,
            "variables" => {
                self.skip_rest()?;
                return Ok(Show::Variables);
            }
            "grants" => Show::Grants,
            "users" => Show::Users,
            "connections" => Show::Connections,
            "functions" => Show::Functions,
            "streams" => Show::Streams,
            "views" => Show::Views,
            "indexes" => {
                self.advance()?;
                self.expect_word("from")?;
                let mut table = self.table_name()?;
                if let Some(database) = self.from_database()? {
                    table.database = Some(database);
                }
                return Ok(Show::Indexes { table });
            }
            "queries" => Show::Queries,
            "licences" => Show::Licences,
            "transactions" => Show::Transactions,
            "alive" => Show::Alive { database: None },
            _ => return self.show_of_database(),
        };
        self.advance()?;
        Ok(show)
    }

    fn show_of_database(&mut self) -> Result<Show<'a>> {
        let database = Some(self.database_name()?);
        if !self.take_mark(".")? {
            return Err(self.near());
        }
        if self.take_word("tables")? {
            return Ok(Show::Tables { database, like: self.like()?, kind: TableKind::All });
        }
        if self.take_word("stables")? {
            return Ok(Show::Stables { database, like: self.like()? });
        }
        if self.take_word("vgroups")? {
            return Ok(Show::Vgroups { database });
        }
        if self.take_word("views")? {
            self.like()?;
            return Ok(Show::Views);
        }
        if self.take_word("alive")? {
            return Ok(Show::Alive { database });
        }
        Err(self.near())
    }

    fn from_database(&mut self) -> Result<Option<String>> {
        if self.take_word("from")? { self.database_name().map(Some) } else { Ok(None) }
    }

    fn like(&mut self) -> Result<Option<&'a str>> {
        if !self.take_word("like")? {
            return Ok(None);
        }
        let Token::Text(text) = self.token else { return Err(self.near()) };
        self.advance()?;
        Ok(Some(text))
    }
}
