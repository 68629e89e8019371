use super::*;

fn reading(used_ms: u64, threads: &[(u64, u64, u64)]) -> Reading {
    let threads = threads.iter().map(|(id, ran, waited)| Thread {
        id: *id,
        ran_ns: ran * 1_000_000,
        waited_ns: waited * 1_000_000,
        slept: None,
    });
    Reading {
        key: 1,
        used_us: used_ms * 1000,
        threads: Some(threads.collect()),
        cpus: 2.0,
        ..Reading::default()
    }
}

/// What is made of two readings one second apart.
fn second(before: Reading, now: Reading) -> Measure {
    let mut meter = Meter::default();
    meter.measure(Sample { at_us: 1_000_000, readings: vec![before] });
    let (elapsed, measures) = meter.measure(Sample { at_us: 2_000_000, readings: vec![now] });
    assert_eq!(elapsed, 1.0);
    measures[0].1
}

#[test]
fn a_hog_that_waits_is_saturated_whatever_else_is_true() {
    let idle = |count: u64| (0..count).map(|id| (id, 0, 0)).collect::<Vec<_>>();
    let table = [
        ("one hog at two thirds", reading(667, &[(0, 667, 333)]), 1.0, true),
        ("one hog with a CPU of its own", reading(1000, &[(0, 1000, 0)]), 1.0, false),
        ("two at half, taking turns", reading(1000, &[(0, 500, 100), (1, 500, 100)]), 1.0, false),
        ("a hog and a sleeper", reading(600, &[(0, 500, 480), (1, 100, 0)]), 1.1, true),
        (
            "sixteen hogs on two CPUs",
            reading(1000, &(0..16).map(|id| (id, 62, 938)).collect::<Vec<_>>()),
            2.0,
            true,
        ),
        ("asleep", reading(0, &idle(3)), 0.0, false),
    ];
    for (what, now, demand, saturated) in table {
        let measure = second(reading(0, &idle(16)), now);
        assert_eq!(measure.saturated, saturated, "{what}: {measure:?}");
        assert!((measure.demand - demand).abs() < 0.01, "{what}: {measure:?}");
        assert_eq!(measure.held, None);
    }
}

#[test]
fn a_wait_that_has_not_ended_is_a_wait() {
    let with = |used: u64, pressure_ms: u64, waited: u64| Reading {
        pressure_us: Some(pressure_ms * 1000),
        ..reading(used, &[(7, used, waited)])
    };
    let measure = second(with(0, 0, 0), with(4, 996, 0));
    assert!(measure.saturated && measure.active(), "{measure:?}");
    assert!((measure.demand - 1.0).abs() < 0.01, "{measure:?}");
}

#[test]
fn who_has_not_slept_between_two_looks_always_wanted_to_run() {
    let with = |used: u64, pressure_ms: u64, slept: Option<u64>| {
        let mut now = Reading { pressure_us: Some(pressure_ms * 1000), ..reading(used, &[(7, used, 0)]) };
        now.threads.iter_mut().flatten().for_each(|thread| thread.slept = slept);
        now
    };
    // Half of its pressure is hidden by a move to another CPU, and its wait has not ended.
    for (before, now, saturated) in [(Some(3), Some(3), true), (Some(3), Some(4), false), (None, None, false)]
    {
        let measure = second(with(0, 0, before), with(4, 500, now));
        assert_eq!(measure.saturated, saturated, "{before:?} {now:?}: {measure:?}");
    }
}

#[test]
fn short_lived_processes_count_together() {
    let with = |used: u64, pressure_ms: u64| Reading {
        pressure_us: Some(pressure_ms * 1000),
        ..reading(used, &[(7, 0, 0)])
    };
    let measure = second(with(0, 0), with(600, 390));
    assert!(measure.saturated, "{measure:?}");
    let measure = second(with(0, 0), with(300, 10));
    assert!(!measure.saturated, "{measure:?}");
}

#[test]
fn without_threads_pressure_speaks() {
    let with = |used: u64, pressure_ms: u64| Reading {
        threads: None,
        pressure_us: Some(pressure_ms * 1000),
        ..reading(used, &[])
    };
    let crowd = second(with(0, 0), with(900, 950));
    assert!(crowd.saturated && crowd.demand == 2.0, "{crowd:?}");
    assert!(!second(with(0, 0), with(900, 300)).saturated);
    let blind = Reading { threads: None, pressure_us: None, ..reading(900, &[]) };
    let measure = second(Reading { used_us: 0, ..blind.clone() }, blind);
    assert!(!measure.saturated && measure.demand == 0.9, "{measure:?}");
}

#[test]
fn who_is_frozen_or_held_by_its_limit_is_not_judged() {
    let hog = || reading(500, &[(0, 500, 500)]);
    let frozen = second(reading(0, &[(0, 0, 0)]), Reading { frozen: true, ..hog() });
    assert_eq!((frozen.held, frozen.saturated, frozen.demand), (Some(Held::Frozen), false, 0.0));
    let throttled = second(reading(0, &[(0, 0, 0)]), Reading { throttled: 3, ..hog() });
    assert_eq!(throttled.held, Some(Held::Throttled));
}

#[test]
fn counters_that_go_back_and_clocks_that_stand_still_are_a_new_start() {
    let mut meter = Meter::default();
    let mut at = |at_us: u64, used: u64| {
        meter.measure(Sample { at_us, readings: vec![reading(used, &[(0, used, 0)])] }).1[0].1
    };
    const NEW: Measure = Measure { cpus: 2.0, ..Measure::UNKNOWN };
    assert_eq!(at(1_000_000, 500), NEW);
    assert_eq!(at(2_000_000, 100), NEW);
    assert!((at(3_000_000, 600).used - 0.5).abs() < 1e-9);
    assert_eq!(at(3_000_000, 700), NEW);
    assert_eq!(at(2_000_000, 700), NEW);
    assert!((at(3_000_000, 1200).used - 0.5).abs() < 1e-9);
}
