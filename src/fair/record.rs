//! One line of JSON per sample: what the simulator and the daemon leave behind and plots are made of.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds since the recording began.
    pub at: f64,
    pub leaves: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    /// CPUs, on average since the point before.
    pub entitled: f64,
    pub received: f64,
    /// CPU-seconds.
    pub lag: f64,
    pub weight: u16,
}

/// A number with as many digits as anybody reads.
pub fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

pub fn line(point: &Point) -> String {
    serde_json::to_string(point).expect("numbers and names are always JSON")
}

/// The points of a recording; other lines between them, such as events, are passed over.
pub fn parse(text: &str) -> Result<Vec<Point>> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains("\"leaves\""));
    lines
        .map(|(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1)))
        .collect()
}
