//! Statements with rows: many tables in one, rows of all tables in turn.
//!
//! Guarantees: within a table of this site's a timestamp is used once; in shared tables every site writes at the same offset
//! within each second, its own (so that no two sites write one key, FACTS F71).

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tdengine_wire::escape::identifier;
use xxhash_rust::xxh3::xxh3_64;

use super::known::{COLUMNS, ColumnKind, Known};
use super::names::Names;

/// A timestamp is at least a millisecond.
pub const ROWS_PER_SECOND_AND_TABLE_MAX: u64 = 1_000;
const SECOND_MS: i64 = 1_000;
/// Share of values that are NULL, in percent.
const NULL_PERCENT: u32 = 5;

/// A statement and the rows in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    pub sql: String,
    pub rows: usize,
}

/// Draws rows.
#[derive(Debug)]
pub struct Rows {
    random: StdRng,
    names: Names,
    tables: u32,
    shared_tables: u32,
    rows_max: usize,
    /// Where the turn is, and the last timestamp used.
    turn: u32,
    last_ms: i64,
    last_shared_second: i64,
    /// Table and time of the last row but those of shared and extra tables.
    written: Option<(u32, i64)>,
}

impl Rows {
    /// `rows_max` is per statement.
    pub fn new(seed: u64, names: Names, tables: u32, shared_tables: u32, rows_max: usize) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(1));
        Self { random, names, tables, shared_tables, rows_max, turn: 0, last_ms: 0, last_shared_second: 0, written: None }
    }

    /// Statements of `count` rows in this site's tables, and of one row in each shared table if a second began.
    pub fn next(&mut self, known: &Known, now_ms: i64, count: usize) -> Vec<Insert> {
        let mut inserts = Vec::new();
        let second = now_ms.div_euclid(SECOND_MS);
        if second > self.last_shared_second && self.shared_tables > 0 {
            self.last_shared_second = second;
            inserts.push(self.shared(known, second * SECOND_MS + slot_ms(&self.names.site)));
        }
        let mut left = count;
        while left > 0 {
            let rows = left.min(self.rows_max);
            inserts.push(self.own(known, now_ms, rows));
            left -= rows;
        }
        inserts
    }

    pub fn written(&self) -> Option<(u32, i64)> {
        self.written
    }

    fn shared(&mut self, known: &Known, at_ms: i64) -> Insert {
        let mut sql = String::from("INSERT INTO");
        for number in 1..=self.shared_tables {
            self.begin_table(&mut sql, &self.names.shared_table(number), &[]);
            self.row(&mut sql, known, &[], at_ms);
        }
        Insert { sql, rows: self.shared_tables as usize }
    }

    /// Consecutive rows of a table, then the next table's: tables take turns over statements.
    fn own(&mut self, known: &Known, now_ms: i64, rows: usize) -> Insert {
        let tables = self.tables + known.extra_tables.len() as u32;
        let rows_per_table = rows.div_ceil(tables as usize);
        let columns: Vec<usize> = (0..known.columns.len()).collect();
        let first_ms = now_ms.max(self.last_ms + 1);
        self.last_ms = first_ms + rows_per_table as i64 - 1;
        let mut sql = String::from("INSERT INTO");
        let mut left = rows;
        while left > 0 {
            self.turn = (self.turn + 1) % tables;
            let table = match self.turn.checked_sub(self.tables) {
                None => {
                    self.written = Some((self.turn + 1, first_ms));
                    self.names.table(self.turn + 1)
                }
                Some(extra) => self.names.extra_table(known.extra_tables[extra as usize]),
            };
            // Not every row has every column.
            let columns = if self.random.random_ratio(1, 2) { &columns[..] } else { &[] };
            let added: Vec<&str> = columns.iter().map(|column| known.columns[*column].name.as_str()).collect();
            self.begin_table(&mut sql, &table, &added);
            for index in 0..left.min(rows_per_table) {
                self.row(&mut sql, known, columns, first_ms + index as i64);
            }
            left -= left.min(rows_per_table);
        }
        Insert { sql, rows }
    }

    fn begin_table(&self, sql: &mut String, table: &str, added: &[&str]) {
        let columns: Vec<String> = COLUMNS.iter().chain(added).map(|name| identifier(name)).collect();
        write!(sql, " {} ({}) VALUES", self.names.qualified(table), columns.join(",")).expect("a string takes it");
    }

    fn row(&mut self, sql: &mut String, known: &Known, columns: &[usize], at_ms: i64) {
        let random = &mut self.random;
        let ts = at_ms * known.ticks_per_ms();
        let (current, voltage, phase) =
            (random.random_range(5.0..15.0f32), random.random_range(210..230), random.random::<f32>());
        write!(sql, " ({ts},{current:.3},{voltage},{phase:.4}").expect("a string takes it");
        for column in columns {
            sql.push(',');
            self.value(sql, known.columns[*column].kind);
        }
        sql.push(')');
    }

    fn value(&mut self, sql: &mut String, kind: ColumnKind) {
        let random = &mut self.random;
        if random.random_ratio(NULL_PERCENT, 100) {
            sql.push_str("NULL");
            return;
        }
        match kind {
            ColumnKind::Int => write!(sql, "{}", random.random_range(-1_000_000..1_000_000)).expect("a string takes it"),
            ColumnKind::Double => write!(sql, "{:.6}", random.random_range(-1.0..1.0f64)).expect("a string takes it"),
            ColumnKind::Bool => sql.push_str(if random.random() { "true" } else { "false" }),
            ColumnKind::Varchar(width) => self.text(sql, width, &['a', 'Z', '0', ' ', '"', '_']),
            ColumnKind::Nchar(width) => self.text(sql, width, &['a', 'é', '涛', '0', ' ']),
        }
    }

    /// A text that uses the whole width at times, so that a column that was not widened in time shows.
    fn text(&mut self, sql: &mut String, width: u32, letters: &[char]) {
        sql.push('\'');
        for _ in 0..self.random.random_range(0..=width) {
            sql.push(letters[self.random.random_range(0..letters.len())]);
        }
        sql.push('\'');
    }
}

/// This site's offset within a second.
fn slot_ms(site: &str) -> i64 {
    (xxh3_64(site.as_bytes()) % SECOND_MS as u64) as i64
}

#[cfg(test)]
mod tests {
    use super::super::known::AddedColumn;
    use super::*;

    fn rows(site: &str) -> Rows {
        let names = Names { database: "power".into(), stable: "meters".into(), site: site.into() };
        Rows::new(1, names, 3, 2, 4)
    }

    /// `table → timestamps` of a statement.
    fn keys(insert: &Insert) -> Vec<(String, i64)> {
        let mut keys = Vec::new();
        let mut table = String::new();
        for word in insert.sql.split(' ') {
            if let Some((_, name)) = word.split_once("`.`") {
                table = name.trim_end_matches('`').into();
            } else if let Some(row) = word.strip_prefix('(')
                && row.starts_with(|first: char| first.is_ascii_digit())
            {
                keys.push((table.clone(), row.split(',').next().unwrap().parse().unwrap()));
            }
        }
        keys
    }

    #[test]
    fn a_key_is_written_once_and_rows_are_as_many_as_asked_for() {
        let known = Known { extra_tables: vec![5], ..Known::default() };
        let mut rows = rows("a");
        let mut seen = std::collections::BTreeSet::new();
        // The clock stands still, and goes back once.
        for now_ms in [10_000, 10_000, 10_001, 9_000, 12_000] {
            let inserts = rows.next(&known, now_ms, 9);
            let own: Vec<_> = inserts.iter().filter(|insert| !insert.sql.contains("shared")).collect();
            assert_eq!(own.iter().map(|insert| insert.rows).collect::<Vec<_>>(), [4, 4, 1]);
            for insert in &inserts {
                let keys = keys(insert);
                assert_eq!(keys.len(), insert.rows, "{}", insert.sql);
                for key in keys {
                    assert!(seen.insert(key.clone()), "{key:?} was written twice");
                }
            }
        }
        assert!(seen.iter().any(|(table, _)| table == "meters_a_x5"));
        let shared: Vec<_> = seen.iter().filter(|(table, _)| table == "meters_shared_1").collect();
        assert_eq!(shared.len(), 2, "one row in each second: {shared:?}");
    }

    #[test]
    fn sites_share_tables_but_no_key() {
        let numbers = (0..10).map(|number| number.to_string());
        let letters = ('a'..='h').map(String::from);
        let places = ["shanghai", "berlin", "oslo", "east", "west", "north", "south"].map(String::from);
        let mut slots = std::collections::BTreeMap::new();
        for site in numbers.chain(letters).chain(places) {
            assert_eq!(slots.insert(slot_ms(&site), site.clone()), None, "{site}");
        }
        let (a, b) = (rows("a").next(&Known::default(), 5_000, 9), rows("b").next(&Known::default(), 5_000, 9));
        let of = |inserts: &[Insert]| inserts.iter().flat_map(keys).collect::<std::collections::BTreeSet<_>>();
        assert!(of(&a).is_disjoint(&of(&b)));
    }

    #[test]
    fn added_columns_stand_in_name_list_and_row_alike() {
        let column = |name: &str, kind| AddedColumn { name: name.into(), kind };
        let columns = vec![column("a_0", ColumnKind::Int), column("a_1", ColumnKind::Bool)];
        let known = Known { columns, ..Known::default() };
        let mut rows = rows("a");
        let insert = rows.next(&known, 1, 1_000).into_iter().map(|insert| insert.sql).collect::<String>();
        let mut with_added = 0;
        for table in insert.split("INSERT INTO").flat_map(|sql| sql.split(" `power`")).skip(1) {
            let Some((names, values)) = table.split_once(" VALUES ") else { continue };
            let count = names.matches(',').count();
            with_added += usize::from(names.contains("`a_1`"));
            for row in values.trim().split(") (") {
                assert_eq!(row.matches(',').count(), count, "{table}");
            }
        }
        assert!(with_added > 0);
    }
}
