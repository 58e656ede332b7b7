//! The table of figures, each with the target it has, if it has one.

use serde_json::{Value, json};
use std::fmt::Write;

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Only for comparison.
    None,
}

struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    goal: Goal,
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Row {
    fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(most) => Some(self.figure <= most),
            Goal::AtLeast(least) => Some(self.figure >= least),
            Goal::None => None,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtMost(most) => format!("≤ {most} {}", self.unit),
            Goal::AtLeast(least) => format!("≥ {least} {}", self.unit),
            Goal::None => String::new(),
        }
    }
}

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, what: impl Into<String>, figure: f64, unit: &'static str, goal: Goal) {
        self.rows.push(Row { what: what.into(), figure, unit, goal });
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        let mut out = String::new();
        for row in &self.rows {
            let reached = match row.reached() {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let figure = format!("{:.2} {}", row.figure, row.unit);
            let line = format!("{:<width$}  {figure:>20}  {:<20}  {reached}", row.what, row.goal());
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "what": row.what,
                "figure": row.figure,
                "unit": row.unit,
                "target": row.goal(),
                "reached": row.reached(),
            })
        };
        self.rows.iter().map(row).collect()
    }
}
