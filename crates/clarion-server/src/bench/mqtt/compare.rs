//! Two brokers, the same work, in turns; and what the one spends as a share of the other.
//!
//! Invariant: each measurement of a broker that is started here has a new process. Must not know: the workloads.

use serde_json::{Value, json};

use super::{
    super::{BenchError, meter::Report, print},
    Args, Shared, Workload,
    broker::Broker,
    measure, running, tell,
};

const NAMES: [&str; 2] = ["clarion", "mosquitto"];

/// Measures both as often as asked, and tells each measurement and the share.
pub(super) fn run(args: &Args, shared: &Shared<'_>) -> Result<(), BenchError> {
    let own = args.common.port.map(|_| running(&args.common, shared)).transpose()?;
    let dress = args.common.dress();
    let mut share = Share::of(&args.workload);
    for round in 0..args.common.rounds {
        let mut pair = [0.0; 2];
        // Whoever comes second finds the machine warmer: they take turns.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for who in order {
            let started = match (who, &own) {
                (0, Some(_)) => None,
                (0, None) => Some(Broker::clarion(dress)?),
                _ => Some(Broker::mosquitto(dress)?),
            };
            let Some(broker) = started.as_ref().or(own.as_ref()) else { continue };
            let mut report = measure(args, broker, shared.progress)?;
            report.more.push(("broker", json!(NAMES[who])));
            tell(shared, &report);
            pair[who] = share.figure(&report)?;
        }
        share.pairs.push(pair);
    }
    print(&if shared.json { share.json().to_string() } else { share.table() });
    Ok(())
}

/// What is compared, and its figures in each round.
#[derive(Debug)]
struct Share {
    workload: &'static str,
    measure: &'static str,
    pairs: Vec<[f64; 2]>,
}

impl Share {
    fn of(workload: &Workload) -> Self {
        let (workload, measure) = match workload {
            Workload::Fanout { .. } => ("mqtt-fanout", "cpu_s_per_million"),
            Workload::Pairs { .. } => ("mqtt-pairs", "cpu_s_per_million"),
            Workload::Idle { .. } => ("mqtt-idle", "kib_per_connection"),
            Workload::Connect { .. } => ("mqtt-connect", "cpu_s_per_million"),
        };
        Self { workload, measure, pairs: Vec::new() }
    }

    fn figure(&self, report: &Report) -> Result<f64, BenchError> {
        let figure = match self.measure {
            "kib_per_connection" => report.server.as_ref().and_then(|s| s.kib_per_connection),
            _ => report.cpu_s_per_million(),
        };
        figure.ok_or_else(|| BenchError::Other("the server's process is not known (--pid)".into()))
    }

    fn medians(&self) -> [f64; 2] {
        [0, 1].map(|who| median(self.pairs.iter().map(|pair| pair[who]).collect()))
    }

    /// NaN (in JSON null) where the other one spent too little to be measured.
    fn ratios(&self) -> Vec<f64> {
        let ratio =
            |[ours, theirs]: &[f64; 2]| if *theirs > 0.0 { ours / theirs } else { f64::NAN };
        self.pairs.iter().map(ratio).collect()
    }

    fn json(&self) -> Value {
        let [ours, theirs] = self.medians();
        let figures = |figures: Vec<f64>| figures.into_iter().map(rounded).collect::<Vec<_>>();
        json!({
            "workload": self.workload,
            "measure": self.measure,
            "clarion": rounded(ours),
            "mosquitto": rounded(theirs),
            "ratio": rounded(median(self.ratios())),
            "ratios": figures(self.ratios()),
        })
    }

    fn table(&self) -> String {
        let [ours, theirs] = self.medians();
        let ratios: Vec<String> = self.ratios().iter().map(|ratio| format!("{ratio:.3}")).collect();
        format!(
            "{}: {} clarion {ours:.3}, mosquitto {theirs:.3}; ratio {:.3} (median of {})",
            self.workload,
            self.measure,
            median(self.ratios()),
            ratios.join(" ")
        )
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Of those that are numbers: the middle one, or the mean of the two in the middle; NaN when there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => (value + values[middle - 1]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_the_median_of_the_rounds() {
        let pairs = vec![[1.0, 10.0], [2.0, 10.0], [9.0, 18.0]];
        let share = Share { workload: "mqtt-pairs", measure: "cpu_s_per_million", pairs };
        let told = share.json();
        assert_eq!((&told["clarion"], &told["mosquitto"]), (&json!(2.0), &json!(10.0)));
        assert_eq!((&told["ratio"], &told["ratios"]), (&json!(0.2), &json!([0.1, 0.2, 0.5])));
        let line = share.table();
        assert!(line.contains("ratio 0.200 (median of 0.100 0.200 0.500)"), "{line}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert!(median(vec![]).is_nan());
        assert_eq!(median(vec![f64::NAN, 2.0]), 2.0);
        let nothing = Share { workload: "", measure: "", pairs: vec![[0.5, 0.0]] };
        assert_eq!(nothing.json()["ratio"], Value::Null);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![3.0, 1.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
