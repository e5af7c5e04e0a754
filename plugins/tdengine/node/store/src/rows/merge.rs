//! Laying newer rows over older ones.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use tdengine_wire::block::{BlockBuilder, BlockView, ColumnView, VERSION_QUERY};
use tdengine_wire::{ColumnType, DataType};

use super::{RUN_ROWS_MAX, Run, timestamps};
use crate::error::Result;
use crate::schema::Schema;

/// `merged` with the rows of `fresh` laid over it, oldest first. Runs of `merged` that no fresh row touches are kept.
pub(super) fn fold(merged: &[Arc<Run>], fresh: &[Run], schema: &Schema) -> Result<Vec<Arc<Run>>> {
    let low = fresh.iter().map(|run| run.first).min().unwrap_or(i64::MAX);
    let high = fresh.iter().map(|run| run.last).max().unwrap_or(i64::MIN);
    let start = merged.partition_point(|run| run.last < low);
    // A short last run grows, so that many small writes do not leave many small runs.
    let start = start - usize::from(start == merged.len() && merged.last().is_some_and(|run| run.rows < RUN_ROWS_MAX));
    let end = merged.partition_point(|run| run.first <= high).max(start);
    let touched = &merged[start..end];
    let sources: Vec<&Run> = touched.iter().map(Arc::as_ref).chain(fresh).collect();
    let mut out: Vec<Arc<Run>> = merged[..start].to_vec();
    Layers::new(&sources, schema)?.build(&mut out)?;
    out.extend_from_slice(&merged[end..]);
    Ok(out)
}

/// `merged` without the rows of a range.
pub(super) fn without(merged: &[Arc<Run>], from: i64, to: i64) -> Result<Vec<Arc<Run>>> {
    let mut out = Vec::with_capacity(merged.len());
    for run in merged {
        if run.last < from || run.first > to {
            out.push(run.clone());
            continue;
        }
        let view = run.view()?;
        let (mut builder, stamps) = (builder_like(&view), timestamps(&view).collect::<Vec<_>>());
        let (start, end) = (stamps.partition_point(|ts| *ts < from), stamps.partition_point(|ts| *ts <= to));
        for range in [0..start, end..view.rows()] {
            for (column, source) in builder.columns_mut().iter_mut().zip(view.columns()) {
                column.extend_from(source, range.clone())?;
            }
        }
        if builder.rows() > 0 {
            out.push(Arc::new(Run::new(run.ids.clone(), builder.encode(VERSION_QUERY)?.into())?));
        }
    }
    Ok(out)
}

fn builder_like(view: &BlockView<'_>) -> BlockBuilder {
    BlockBuilder::new(view.columns().iter().map(ColumnView::column_type))
}

/// Where a row stands: which source, which row of it.
#[derive(Clone, Copy)]
struct Place {
    ts: i64,
    source: u32,
    row: u32,
}

/// Rows of the result in order.
enum Piece {
    /// Neighbours of one source that nothing lies over.
    Rows(usize, Range<usize>),
    /// Places of one key, oldest first.
    Layered(Range<usize>),
}

/// Sources from old to new, and for each result column its place in each of them.
struct Layers<'a> {
    views: Vec<BlockView<'a>>,
    ids: Arc<[i16]>,
    types: Vec<ColumnType>,
    /// By result column, then by source.
    columns: Vec<Vec<Option<ColumnView<'a>>>>,
    /// The second key column, by source.
    keys: Option<Vec<ColumnView<'a>>>,
}

impl<'a> Layers<'a> {
    fn new(sources: &[&'a Run], schema: &Schema) -> Result<Self> {
        let views = sources.iter().map(|run| run.view()).collect::<Result<Vec<_>>>()?;
        let (mut ids, mut types, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        for field in &schema.fields {
            let places: Vec<_> = sources.iter().zip(&views).map(|(run, view)| run.column(view, field.id)).collect();
            if places.iter().any(Option::is_some) {
                ids.push(field.id);
                types.push(field.column_type);
                columns.push(places);
            }
        }
        let composite = schema.has_composite_key() && columns.len() > 1;
        let keys = composite.then(|| columns[1].iter().filter_map(|column| *column).collect::<Vec<_>>());
        let keys = keys.filter(|keys| keys.len() == views.len());
        Ok(Self { views, ids: ids.into(), types, columns, keys })
    }

    fn build(&self, out: &mut Vec<Arc<Run>>) -> Result<()> {
        let places = self.places();
        let mut builder = BlockBuilder::new(self.types.iter().copied());
        for piece in self.pieces(&places) {
            match piece {
                Piece::Rows(source, rows) => {
                    let mut start = rows.start;
                    while start < rows.end {
                        let end = rows.end.min(start + RUN_ROWS_MAX - builder.rows());
                        self.copy(&mut builder, source, start..end)?;
                        start = end;
                        self.finish(&mut builder, RUN_ROWS_MAX, out)?;
                    }
                }
                Piece::Layered(range) => {
                    self.overlay(&mut builder, &places[range])?;
                    self.finish(&mut builder, RUN_ROWS_MAX, out)?;
                }
            }
        }
        self.finish(&mut builder, 1, out)
    }

    fn finish(&self, builder: &mut BlockBuilder, rows_min: usize, out: &mut Vec<Arc<Run>>) -> Result<()> {
        if builder.rows() >= rows_min {
            out.push(Arc::new(Run::new(self.ids.clone(), builder.encode(VERSION_QUERY)?.into())?));
            builder.clear();
        }
        Ok(())
    }

    /// Every row of every source in order of key, rows of one key from old to new.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(self.views.iter().map(BlockView::rows).sum());
        for (source, view) in self.views.iter().enumerate() {
            let stamps = timestamps(view).enumerate();
            places.extend(stamps.map(|(row, ts)| Place { ts, source: source as u32, row: row as u32 }));
        }
        if !places.is_sorted_by(|left, right| self.compare(left, right).is_le()) {
            places.sort_by(|left, right| self.compare(left, right));
        }
        places
    }

    fn compare(&self, left: &Place, right: &Place) -> Ordering {
        let Some(keys) = &self.keys else { return left.ts.cmp(&right.ts) };
        left.ts.cmp(&right.ts).then_with(|| {
            let (one, two) = (&keys[left.source as usize], &keys[right.source as usize]);
            compare_keys(one.data_type(), one.bytes(left.row as usize), two.bytes(right.row as usize))
        })
    }

    fn pieces(&self, places: &[Place]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut start = 0;
        while start < places.len() {
            let first = &places[start];
            let same = places[start + 1..].iter().take_while(|place| self.compare(first, place).is_eq()).count();
            let (source, row) = (first.source as usize, first.row as usize);
            match (same, pieces.last_mut()) {
                (0, Some(Piece::Rows(last, rows))) if *last == source && rows.end == row => rows.end += 1,
                (0, _) => pieces.push(Piece::Rows(source, row..row + 1)),
                _ => pieces.push(Piece::Layered(start..start + same + 1)),
            }
            start += same + 1;
        }
        pieces
    }

    fn copy(&self, builder: &mut BlockBuilder, source: usize, rows: Range<usize>) -> Result<()> {
        for (column, places) in builder.columns_mut().iter_mut().zip(&self.columns) {
            match &places[source] {
                Some(view) => column.extend_from(view, rows.clone())?,
                None => rows.clone().for_each(|_| column.push_null()),
            }
        }
        Ok(())
    }

    fn overlay(&self, builder: &mut BlockBuilder, layers: &[Place]) -> Result<()> {
        for (column, places) in builder.columns_mut().iter_mut().zip(&self.columns) {
            let newest = layers.iter().rev().find_map(|place| Some((places[place.source as usize]?, place.row as usize)));
            match newest.and_then(|(view, row)| view.bytes(row)) {
                Some(bytes) => column.push_bytes(bytes)?,
                None => column.push_null(),
            }
        }
        Ok(())
    }
}

/// Order of the second key column: numbers by value, texts by bytes.
fn compare_keys(data_type: DataType, left: Option<&[u8]>, right: Option<&[u8]>) -> Ordering {
    let (Some(left), Some(right)) = (left, right) else { return left.is_some().cmp(&right.is_some()) };
    match data_type {
        DataType::Int | DataType::BigInt => number(left, true).cmp(&number(right, true)),
        DataType::UInt | DataType::UBigInt => number(left, false).cmp(&number(right, false)),
        _ => left.cmp(right),
    }
}

fn number(bytes: &[u8], signed: bool) -> i128 {
    let fill = if signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [fill; 16];
    let length = bytes.len().min(16);
    wide[..length].copy_from_slice(&bytes[..length]);
    i128::from_le_bytes(wide)
}
