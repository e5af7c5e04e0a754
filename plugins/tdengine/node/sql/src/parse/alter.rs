//! ALTER.

use super::create::ALTER_OPTIONS;
use super::{Parser, Result, TABLE_NAME_MAX};
use crate::ast::*;

impl<'a> Parser<'a> {
    pub(super) fn alter(&mut self) -> Result<Statement<'a>> {
        self.advance()?;
        if self.take_word("database")? {
            let name = self.database_name()?;
            return Ok(Statement::AlterDatabase { name, options: self.database_options(&ALTER_OPTIONS)? });
        }
        if self.take_word("user")? {
            let name = self.identifier(TABLE_NAME_MAX)?;
            let password = if self.take_word("pass")? { Some(self.string()?) } else { None };
            self.skip_rest()?;
            return Ok(Statement::AlterUser { name, password });
        }
        if self.is_word("dnode") || self.is_word("all") || self.is_word("local") || self.is_word("cluster") {
            return self.no_operation("alter");
        }
        let stable = self.take_word("stable")?;
        if !stable {
            self.expect_word("table")?;
        }
        let name = self.table_name()?;
        Ok(Statement::Alter { name, stable, action: self.alter_action()? })
    }

    fn alter_action(&mut self) -> Result<AlterAction<'a>> {
        if self.take_word("add")? {
            return Ok(if self.take_word("tag")? {
                AlterAction::AddTag(self.column()?)
            } else {
                self.expect_word("column")?;
                AlterAction::AddColumn(self.column()?)
            });
        }
        if self.take_word("drop")? {
            return Ok(if self.take_word("tag")? {
                AlterAction::DropTag(self.column_name()?)
            } else {
                self.expect_word("column")?;
                AlterAction::DropColumn(self.column_name()?)
            });
        }
        if self.take_word("modify")? {
            return self.modify();
        }
        if self.take_word("rename")? {
            let tag = self.take_word("tag")?;
            if !tag {
                self.expect_word("column")?;
            }
            let (from, to) = (self.column_name()?, self.new_column_name()?);
            return Ok(if tag { AlterAction::RenameTag { from, to } } else { AlterAction::RenameColumn { from, to } });
        }
        if self.take_word("set")? {
            return self.set_tags();
        }
        let options = self.table_options()?;
        if options == TableOptions::default() { Err(self.near()) } else { Ok(AlterAction::Options(options)) }
    }

    fn modify(&mut self) -> Result<AlterAction<'a>> {
        if self.take_word("tag")? {
            let name = self.column_name()?;
            return Ok(AlterAction::ModifyTag { name, data_type: self.data_type()? });
        }
        self.expect_word("column")?;
        let name = self.column_name()?;
        let (mut encode, mut compress, mut level) = (None, None, None);
        loop {
            if self.take_word("encode")? {
                encode = Some(self.string()?);
            } else if self.take_word("compress")? {
                compress = Some(self.string()?);
            } else if self.take_word("level")? {
                level = Some(self.string()?);
            } else {
                break;
            }
        }
        if encode.is_some() || compress.is_some() || level.is_some() {
            return Ok(AlterAction::CompressColumn { name, encode, compress, level });
        }
        Ok(AlterAction::ModifyColumn { name, data_type: self.data_type()? })
    }

    fn set_tags(&mut self) -> Result<AlterAction<'a>> {
        let mut tags = Vec::new();
        loop {
            self.expect_word("tag")?;
            let name = self.column_name()?;
            self.expect_mark("=")?;
            tags.push((name, self.value()?));
            // Newer servers: `SET TAG a = 1, b = 2`, with or without the second TAG.
            if !self.take_comma()? {
                return Ok(AlterAction::SetTags(tags));
            }
            while !self.is_word("tag") {
                let name = self.column_name()?;
                self.expect_mark("=")?;
                tags.push((name, self.value()?));
                if !self.take_comma()? {
                    return Ok(AlterAction::SetTags(tags));
                }
            }
        }
    }
}
