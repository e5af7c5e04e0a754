//! Raw writes: TMQ raw data and meta (action 3), blocks by position (4) and by name (5). What they write is marked
//! (PROTOCOL 10.2); all that is silent or odd about them is the store's, see its `faithful` mode.

use bytes::Bytes;
use tdengine_store::store::RawField;
use tdengine_wire::envelope::WriteField;

use super::Connection;
use crate::reply::{Answer, Call};

impl Connection {
    /// `data` is a part of `frame`.
    pub(super) async fn write_raw(&self, call: &Call, raw_type: u16, data: &[u8], frame: &Bytes) -> Answer {
        let (session, data) = (self.session()?, frame.slice_ref(data));
        self.shared.blocking(move |shared| Ok(shared.store.apply_raw(&session, raw_type, &data)?)).await?;
        call.done()
    }

    /// `block` is a part of `frame`; `fields` are absent in action 4, whose columns are those of the table in order.
    pub(super) async fn write_block(
        &self,
        call: &Call,
        table: &str,
        block: &[u8],
        frame: &Bytes,
        fields: Option<Vec<WriteField>>,
    ) -> Answer {
        let (session, table, block) = (self.session()?, table.to_owned(), frame.slice_ref(block));
        let field = |field: WriteField| RawField { name: field.name, data_type: field.type_code, bytes: field.bytes };
        let fields: Option<Vec<RawField>> = fields.map(|fields| fields.into_iter().map(field).collect());
        let write = move |shared: &crate::node::Shared| {
            Ok(shared.store.write_raw_block(&session, &table, fields.as_deref(), &block)?)
        };
        self.shared.blocking(write).await?;
        call.done()
    }
}
