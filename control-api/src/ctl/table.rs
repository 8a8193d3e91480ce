//! Columns, as istioctl aligns them.

use std::fmt::Write as _;

/// Spaces between columns.
const GAP: usize = 5;

/// Lines of cells under a head; every column is as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { lines: vec![head.iter().map(ToString::to_string).collect()] }
    }

    pub(super) fn line<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.lines.push(cells.into_iter().map(Into::into).collect());
    }

    /// Nothing below the head.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.len() == 1
    }

    pub(super) fn text(&self) -> String {
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default() + GAP
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &self.lines {
            let mut shown = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(shown, "{cell:<width$}");
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "CDS"]);
        assert!(table.is_empty());
        table.line(["reviews.shop", "SYNCED"]);
        assert_eq!(table.text(), "NAME             CDS\nreviews.shop     SYNCED\n");
    }
}
