//! What was seen of the server in the course of a churn: lines, a table, a verdict.
//!
//! Must not know: what was done to the server.

use std::{fmt::Write, fs, io, path::Path};

use serde_json::{Value, json};

use super::super::{super::process::ServerProcess, rounded};

const MIB: f64 = 1_048_576.0;

/// The server at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) seconds: f64,
    pub(super) rss_mib: Option<f64>,
    pub(super) disk_mib: Option<f64>,
    pub(super) cpu_s: Option<f64>,
    /// Connections.
    pub(super) open: usize,
    /// How often each thing was done since the start.
    pub(super) operations: Vec<(&'static str, u64)>,
    pub(super) errors: u64,
}

impl Row {
    /// Looks at the process and its files.
    pub(super) fn look(process: Option<&ServerProcess>, data: Option<&Path>) -> Self {
        Self {
            rss_mib: process.and_then(ServerProcess::rss_kib).map(|kib| kib as f64 / 1024.0),
            disk_mib: data.and_then(|data| bytes_in(data).ok()).map(|bytes| bytes as f64 / MIB),
            cpu_s: process.and_then(ServerProcess::cpu_seconds),
            ..Self::default()
        }
    }

    pub(super) fn json(&self) -> Value {
        let operations = self.operations.iter().map(|(name, count)| ((*name).into(), json!(count)));
        json!({
            "seconds": rounded(self.seconds),
            "rss_mib": self.rss_mib.map(rounded),
            "disk_mib": self.disk_mib.map(rounded),
            "cpu_s": self.cpu_s,
            "open": self.open,
            "operations": Value::Object(operations.collect()),
            "errors": self.errors,
        })
    }
}

/// What the files below a directory take on the disk; one that goes meanwhile is not counted.
fn bytes_in(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in fs::read_dir(dir)?.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        sum += meta.blocks() * 512;
        if meta.is_dir() {
            sum += bytes_in(&entry.path()).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// What grows: MiB per minute over the second half, by least squares. `None` where that was not seen at least twice.
pub(super) fn slope(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let half = rows.last()?.seconds / 2.0;
    let points: Vec<(f64, f64)> = rows
        .iter()
        .filter(|row| row.seconds >= half)
        .filter_map(|row| Some((row.seconds / 60.0, of(row)?)))
        .collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let common: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| common / spread)
}

/// The rows as a table.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut text = String::from("seconds,rss_mib,disk_mib,cpu_s,open,errors");
    for (name, _) in rows.first().map(|row| row.operations.as_slice()).unwrap_or_default() {
        text.push(',');
        text.push_str(name);
    }
    text.push('\n');
    let figure = |figure: Option<f64>| figure.map(|f| format!("{f:.1}")).unwrap_or_default();
    for row in rows {
        // Writing to a String cannot fail.
        let _ = write!(text, "{:.1},{},", row.seconds, figure(row.rss_mib));
        let _ = write!(text, "{},{},", figure(row.disk_mib), figure(row.cpu_s));
        let _ = write!(text, "{},{}", row.open, row.errors);
        for (_, count) in &row.operations {
            let _ = write!(text, ",{count}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |n: u32| Row {
            seconds: f64::from(n) * 30.0,
            // Falls steeply at first, then grows by 2 a minute.
            rss_mib: Some(if n < 5 { 1000.0 - f64::from(n) } else { f64::from(n) }),
            operations: vec![("resumed", u64::from(n))],
            ..Row::default()
        };
        (0..=10).map(row).collect()
    }

    #[test]
    fn only_the_second_half_counts() {
        let slope_of = slope(&rows(), |row| row.rss_mib).unwrap();
        assert!((slope_of - 2.0).abs() < 1e-9, "{slope_of}");
        assert_eq!(slope(&rows(), |row| row.disk_mib), None);
        assert_eq!(slope(&rows()[..1], |row| row.rss_mib), None);
        assert_eq!(slope(&[], |row| row.rss_mib), None);
    }

    #[test]
    fn a_table_has_a_column_for_everything() {
        let table = csv(&rows()[..2]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "seconds,rss_mib,disk_mib,cpu_s,open,errors,resumed");
        assert_eq!(lines[2], "30.0,999.0,,,0,0,1");
    }

    #[test]
    fn files_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        let bytes = bytes_in(dir.path()).unwrap();
        assert!((100_000..300_000).contains(&bytes), "{bytes}");
    }
}
