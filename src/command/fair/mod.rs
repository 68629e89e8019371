//! The verbs about sharing the CPU.

pub mod plot;
pub mod simulate;

/// Columns as wide as they need to be; all but those named as text are numbers and stand to the right.
pub fn table<const N: usize>(texts: usize, rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            match column < texts {
                true => line.push_str(&format!("{gap}{cell:width$}")),
                false => line.push_str(&format!("{gap}{cell:>width$}")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
