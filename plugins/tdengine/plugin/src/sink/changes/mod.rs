//! Changes at the target: read first, send nothing where nothing differs, once per identity, and marked or with a token.
//!
//! Nearly everything goes raw, and so marked. Two kinds cannot: `ALTER STABLE` (raw it works from one side only, FACTS F9)
//! goes as SQL with the token in its text, and a drop (which no mark survives, FACTS F7) is preceded by the token as the
//! COMMENT of what is dropped.

mod delete;
mod stable;
mod table;

pub use table::{Creation, create, is_missing, tolerate};

use pipeline_sdk::{Change, Error, Header, Result};

use super::tag_values::is_tag_missing;
use super::target::Target;
use crate::transport::Connection;
use crate::errors::wire_error;
use crate::log::change::Change as Entry;
use crate::log::open_envelope;
use crate::source::{CHANGE_FORMAT, SEEN_FORMAT};

/// A change with what applying it needs.
pub struct Applying<'a> {
    pub target: &'a mut Target,
    pub connection: &'a Connection,
    pub header: &'a Header,
    pub change: &'a Change,
    /// `u32 length, u16 type, body`.
    pub raw: &'a [u8],
}

/// Applies a change of a TDengine log.
pub async fn apply(target: &mut Target, connection: &Connection, header: &Header, change: &Change) -> Result<()> {
    let Some(raw) = change.raw.as_ref().filter(|raw| matches!(&*raw.format, CHANGE_FORMAT | SEEN_FORMAT)) else {
        let message = format!("this sink applies changes of TDengine logs only, not {:?} of another source", change.kind);
        return Err(Error::rejected(message).code("tdengine.foreign-change"));
    };
    let (raw_type, body) = open_envelope(&raw.data).map_err(wire_error)?;
    let Some(entry) = Entry::parse(raw_type, body).map_err(wire_error)? else { return Ok(()) };
    let mut applying = Applying { target, connection, header, change, raw: &raw.data };
    let applied = match entry {
        Entry::CreateTables(tables) => create(applying.target, connection, &[Creation { header, change, raw: &raw.data, tables }]).await,
        Entry::AlterStable(stable) if &*raw.format == SEEN_FORMAT => stable::learn(&mut applying, &stable).await,
        Entry::DropStable { name, suid } if &*raw.format == SEEN_FORMAT => stable::learn_gone(applying.target, &name, suid),
        Entry::CreateStable(stable) => stable::create(&mut applying, stable).await,
        Entry::AlterStable(stable) => stable::alter(&mut applying, stable).await,
        Entry::DropStable { name, suid } => stable::drop(&mut applying, &name, suid).await,
        Entry::AlterTable { name, action } => table::alter(&mut applying, &name, action).await,
        Entry::DropTables(_) => {
            for name in &change.tables {
                table::drop(&mut applying, name).await?;
            }
            Ok(())
        }
        Entry::Delete(delete) => delete::delete(&mut applying, &delete).await,
    };
    applied.map_err(|error| error.context(place_of(header, change)))?;
    target.waits_since = None;
    Ok(())
}

/// Whether a server says of a change that it is done already, or that what it changes is not there.
pub fn is_settled(code: u32) -> bool {
    is_missing(code) || is_tag_missing(code) || stable::is_done_already(code) || table::is_done_already(code)
}

/// For a person: what is changed, and where in the log.
pub fn place_of(header: &Header, change: &Change) -> String {
    let name = change.tables.first().or(change.group.as_ref()).map(|name| name.as_ref()).unwrap_or_default();
    format!("{:?} of `{}`.`{name}` at {}", change.kind, change.namespace, header.position)
}
