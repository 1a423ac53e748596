//! Aligned columns of text.

/// On which side a column's values stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

const GAP: &str = "  ";

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(columns: [(&'static str, Align); N]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// A row has a value for each column.
    pub fn row<const N: usize>(&mut self, values: [String; N]) {
        assert_eq!(N, self.columns.len(), "a row fills its table");
        self.rows.push(values.to_vec());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, headings first, without spaces at their ends.
    pub fn lines(&self) -> Vec<String> {
        let headings = self
            .columns
            .iter()
            .map(|(heading, _)| (*heading).to_owned());
        let all: Vec<Vec<String>> = std::iter::once(headings.collect())
            .chain(self.rows.iter().cloned())
            .collect();
        let width = |at: usize| all.iter().map(|row| wide(&row[at])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        all.iter().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).zip(&self.columns);
        let padded = cells.map(|((value, width), (_, align))| {
            let space = " ".repeat(width - wide(value));
            match align {
                Align::Left => format!("{value}{space}"),
                Align::Right => format!("{space}{value}"),
            }
        });
        let line = padded.collect::<Vec<_>>().join(GAP);
        line.trim_end().to_owned()
    }
}

/// How many columns of a terminal the text takes, where each character takes one.
fn wide(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("region", Align::Left), ("likes", Align::Right)]);
        table.row(["us".to_owned(), "12".to_owned()]);
        table.row(["frankfurt".to_owned(), "1234567".to_owned()]);
        table.row(["日本".to_owned(), "0".to_owned()]);
        assert_eq!(
            table.lines(),
            [
                "region       likes",
                "us              12",
                "frankfurt  1234567",
                "日本               0",
            ]
        );
    }

    #[test]
    fn no_line_ends_in_spaces() {
        let mut table = Table::new([("a", Align::Left), ("b", Align::Left)]);
        table.row(["x".to_owned(), String::new()]);
        assert_eq!(table.lines(), ["a  b", "x"]);
    }
}
