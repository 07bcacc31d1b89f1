//! Two brokers, the same work, in turns; and what the one spends as a share of the other.
//!
//! Invariant: each measurement of a broker that is started here has a new process. Must not know: the workloads.

use serde_json::{Value, json};

use super::{
    super::{BenchError, meter::Report, print},
    Args, Voice, Workload,
    broker::Broker,
    measure, rounded, running,
};

const NAMES: [&str; 2] = ["clarion", "mosquitto"];

/// Measures both as often as asked, and tells each measurement and the share.
pub(super) fn run(args: &Args, voice: &Voice<'_>) -> Result<(), BenchError> {
    let shared = voice.shared;
    let mut own = args.common.port.map(|_| running(&args.common, shared)).transpose()?;
    let mut shares: Vec<Share> = Vec::new();
    for round in 0..args.common.rounds {
        // Whoever comes second finds the machine warmer: they take turns.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for who in order {
            let mut started = match (who, &own) {
                (0, Some(_)) => None,
                _ => Some(start(args, who)?),
            };
            let Some(broker) = started.as_mut().or(own.as_mut()) else { continue };
            measure(args, broker, shared.progress, &mut |mut report| {
                report.more.push(("broker", json!(NAMES[who])));
                let noted = note(&mut shares, round, who, &report);
                voice.tell(report);
                noted
            })?;
        }
    }
    for share in &shares {
        print(&if shared.json { share.json().to_string() } else { share.table() });
    }
    Ok(())
}

/// A new process of one of them.
fn start(args: &Args, who: usize) -> Result<Broker, BenchError> {
    let dress = args.common.dress();
    let offline = match &args.workload {
        Workload::Offline(offline) => Some(offline),
        _ => None,
    };
    match who {
        0 => {
            let settings = offline.map(|offline| offline.settings()).unwrap_or_default();
            Broker::clarion(dress, &settings)
        }
        _ => Broker::mosquitto(dress, offline.map(|offline| &offline.autosave)),
    }
}

fn note(
    shares: &mut Vec<Share>,
    round: u32,
    who: usize,
    report: &Report,
) -> Result<(), BenchError> {
    let place = shares.iter().position(|share| share.workload == report.workload);
    let place = place.unwrap_or_else(|| {
        shares.push(Share::of(&report.workload));
        shares.len() - 1
    });
    let share = &mut shares[place];
    let figure = share.figure(report)?;
    share.pairs.resize(round as usize + 1, [f64::NAN; 2]);
    share.pairs[round as usize][who] = figure;
    Ok(())
}

/// What is compared, and its figures in each round.
#[derive(Debug)]
struct Share {
    workload: String,
    measure: &'static str,
    pairs: Vec<[f64; 2]>,
}

impl Share {
    fn of(workload: &str) -> Self {
        let measure = match workload {
            "mqtt-idle" => "kib_per_connection",
            "mqtt-offline-restart" => "seconds",
            _ => "cpu_s_per_million",
        };
        Self { workload: workload.into(), measure, pairs: Vec::new() }
    }

    /// NaN where there was nothing to measure it by.
    fn figure(&self, report: &Report) -> Result<f64, BenchError> {
        let figure = match self.measure {
            "kib_per_connection" => report.server.as_ref().and_then(|s| s.kib_per_connection),
            "seconds" => Some(report.seconds),
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
        let share = Share { workload: "mqtt-pairs".into(), measure: "cpu_s_per_million", pairs };
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
        let nothing = Share { workload: String::new(), measure: "", pairs: vec![[0.5, 0.0]] };
        assert_eq!(nothing.json()["ratio"], Value::Null);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![3.0, 1.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
