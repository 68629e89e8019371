use proptest::prelude::*;

use super::*;

fn scenario(rest: &str, containers: &str) -> Scenario {
    let text = format!(r#"{{"name": "x", {rest}, "containers": [{containers}]}}"#);
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{text}: {error:#}"))
}

const KERNELS: [Kernel; 2] = [Kernel::Group, Kernel::Cpu];

#[test]
fn a_sleeper_that_returns_has_its_fair_share_and_no_more_than_a_period_on_top() {
    let sleeper = scenario(
        r#""cpus": 1, "seconds": 8"#,
        r#"{"name": "steady"}, {"name": "sleeper", "away": [[2, 6]]}"#,
    );
    for kernel in KERNELS {
        let outcome = run(&sleeper, PolicyName::Wfq, kernel);
        let received = |name: &str| {
            let points = outcome.points.iter().filter(|point| point.at > 6.1 && point.at < 8.1);
            let rows = points.flat_map(|point| &point.leaves).filter(|row| row.name == name);
            rows.map(|row| row.received * 0.5).sum::<f64>()
        };
        let (steady, sleeper) = (received("steady"), received("sleeper"));
        assert!(sleeper <= (steady + sleeper) / 2.0 + 0.25, "{kernel:?}: {sleeper} beside {steady}");
        assert!(sleeper >= 0.7, "{kernel:?}: it is not starved either: {sleeper} beside {steady}");
    }
}

#[test]
fn without_the_minimum_a_sleeper_starves_the_other_for_as_long_as_it_slept() {
    let sleeper = scenario(
        r#""cpus": 1, "seconds": 9"#,
        r#"{"name": "steady"}, {"name": "sleeper", "away": [[1, 5]]}"#,
    );
    let behind = |policy| {
        let outcome = run(&sleeper, policy, Kernel::Group);
        outcome.containers.iter().find(|result| result.name == "steady").map(|result| result.lag).unwrap()
    };
    let (with, without) = (behind(PolicyName::Strict), behind(PolicyName::StrictWithoutMinimum));
    assert!(with < 0.3 && without > 1.5, "{with} s behind with it, {without} s without");
}

#[test]
fn a_hard_limit_leaves_cycles_unused_and_weights_do_not() {
    let used = |limit: &str| {
        let containers =
            format!(r#"{{"name": "worker", "threads": 2 {limit}}}, {{"name": "idle", "away": [[0, 4]]}}"#);
        let outcome =
            run(&scenario(r#""cpus": 2, "seconds": 4"#, &containers), PolicyName::Static, Kernel::Group);
        outcome.used / 4.0
    };
    assert!(used("") > 1.98, "{}", used(""));
    assert!((used(r#", "limit": 1"#) - 1.0).abs() < 0.05);
}

#[test]
fn a_machine_whose_cpus_are_taken_away_for_moments_is_no_reason_to_write() {
    let containers =
        r#"{"name": "ann-{n}", "tenant": "ann", "copies": 5, "threads": 2}, {"name": "bob", "threads": 2}"#;
    let stolen = scenario(r#""cpus": 2, "seconds": 40, "steal": 0.3"#, containers);
    for kernel in KERNELS {
        let outcome = run(&stolen, PolicyName::Wfq, kernel);
        assert_eq!(outcome.writes_at_rest, 0, "{kernel:?}");
    }
}

#[derive(Debug, Clone)]
struct Hogs(Vec<(u32, u32)>);

fn hogs() -> impl Strategy<Value = Hogs> {
    prop::collection::vec((1u32..5, 1u32..5), 1..5).prop_map(Hogs)
}

impl Hogs {
    fn scenario(&self, cpus: u32) -> Scenario {
        let one = |(place, (shares, threads)): (usize, &(u32, u32))| {
            format!(r#"{{"name": "c{place}", "shares": {shares}, "threads": {threads}}}"#)
        };
        let containers: Vec<String> = self.0.iter().enumerate().map(one).collect();
        scenario(&format!(r#""cpus": {cpus}, "seconds": 5"#), &containers.join(", "))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_cycle_is_left_unused_and_every_weight_is_one(hogs in hogs(), cpus in 1u32..4) {
        let scenario = hogs.scenario(cpus);
        for kernel in KERNELS {
            let outcome = run(&scenario, PolicyName::Wfq, kernel);
            prop_assert!(outcome.used > outcome.usable * 0.985, "{} of {}", outcome.used, outcome.usable);
            let weights = outcome.points.iter().flat_map(|point| &point.leaves).map(|row| row.weight);
            prop_assert!(weights.clone().all(|weight| (1..=10_000).contains(&weight)));
        }
    }

    /// What is measured says that everybody has what it is entitled to, on and on: after the first there is no write.
    #[test]
    fn where_everybody_has_its_share_nothing_is_written_twice(shares in prop::collection::vec(1u32..9, 2..6)) {
        let total: u32 = shares.iter().sum();
        let mut controller = Controller::new(policy(PolicyName::Wfq, 0.0, 1), 1.0);
        for (key, shares) in shares.iter().enumerate() {
            let terms = super::super::model::Terms::of_shares(f64::from(*shares));
            controller.join(Member { key: key as Key, name: format!("c{key}"), class: None, tenant: None, terms });
        }
        prop_assert_eq!(controller.reconsider().len(), shares.len());
        let mut later = 0;
        for turn in 1..200u64 {
            let at_us = turn * 250_000;
            let readings = shares.iter().enumerate().map(|(key, shares)| {
                let ran_ns = at_us * 1000 * u64::from(*shares) / u64::from(total);
                let thread = super::super::meter::Thread { id: key as u64, ran_ns, waited_ns: at_us * 1000 - ran_ns, slept: None };
                super::super::meter::Reading {
                    key: key as Key,
                    used_us: ran_ns / 1000,
                    threads: Some(vec![thread]),
                    pressure_us: Some(at_us - ran_ns / 1000),
                    cpus: 1.0,
                    ..Default::default()
                }
            });
            later += controller.step(Sample { at_us, readings: readings.collect() }).len();
        }
        prop_assert_eq!(later, 0);
        prop_assert_eq!(controller.pace(), 8);
    }
}
