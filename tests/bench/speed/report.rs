//! Figures, what is wanted of them, and the table.

use comfy_table::{CellAlignment, Table, presets};

#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    AtLeast(f64),
    Below(f64),
    /// For information.
    Nothing,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    wanted: Wanted,
    samples: Vec<f64>,
}

#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure; shown at once, so that a long run tells something.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, wanted: Wanted, mut samples: Vec<f64>) {
        let name = name.into();
        eprintln!("{name} [{unit}]: {samples:.3?}");
        samples.sort_by(f64::total_cmp);
        self.rows.push(Row { name, unit, wanted, samples });
    }

    pub fn is_missed(&self) -> bool {
        self.rows.iter().any(|row| row.verdict() == "missed")
    }

    pub fn render(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["figure", "wanted", "min", "median", "max", "rounds", ""]);
        for row in &self.rows {
            let at = |index: usize| row.samples.get(index).map_or_else(|| "-".into(), |value| number(*value));
            let count = row.samples.len();
            let wanted = match row.wanted {
                Wanted::AtLeast(least) => format!("≥ {} {}", number(least), row.unit),
                Wanted::Below(most) => format!("< {} {}", number(most), row.unit),
                Wanted::Nothing => format!("({})", row.unit),
            };
            let (min, median, max) = (at(0), at(count / 2), at(count.saturating_sub(1)));
            table.add_row([row.name.clone(), wanted, min, median, max, count.to_string(), row.verdict().into()]);
        }
        for column in table.column_iter_mut().skip(2).take(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        let Some(median) = self.samples.get(self.samples.len() / 2) else { return "missed" };
        match self.wanted {
            Wanted::AtLeast(least) if *median < least => "missed",
            Wanted::Below(most) if *median >= most => "missed",
            Wanted::Nothing => "",
            _ => "ok",
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
