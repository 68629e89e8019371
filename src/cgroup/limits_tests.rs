use super::*;

fn parse(json: &str) -> Resources<'_> {
    serde_json::from_str(json).unwrap()
}

fn told(json: &str, facts: &Facts) -> String {
    match writes(&parse(json), facts) {
        Ok(list) => list.iter().map(Write::to_string).collect::<Vec<_>>().join("; "),
        Err(error) => format!("refused: {error}"),
    }
}

fn check(table: &[(&str, &str)]) {
    for (json, expected) in table {
        assert_eq!(told(json, &Facts::default()), *expected, "{json}");
    }
}

#[test]
fn weights_follow_the_quadratic_curve() {
    // shares -> weight, the values runc writes.
    let table = [
        (0, None),
        (1, Some(1)),
        (2, Some(1)),
        (100, Some(17)),
        (128, Some(21)),
        (200, Some(29)),
        (512, Some(59)),
        (1024, Some(100)),
        (2048, Some(174)),
        (10240, Some(639)),
        (262_143, Some(10_000)),
        (262_144, Some(10_000)),
        (u64::MAX, Some(10_000)),
    ];
    for (shares, weight) in table {
        assert_eq!(cpu_weight(shares), weight, "{shares}");
    }
    let mut last = 0;
    for shares in 2..=262_144 {
        let weight = cpu_weight(shares).unwrap();
        assert!((1..=10_000).contains(&weight) && weight >= last, "{shares} -> {weight}");
        last = weight;
    }
}

#[test]
fn cpu_values() {
    check(&[
        ("{}", ""),
        (r#"{"cpu": {}}"#, ""),
        (r#"{"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}"#, ""),
        (r#"{"cpu": {"shares": 1024}}"#, r#"cpu.weight = "100""#),
        (r#"{"cpu": {"quota": 50000}}"#, r#"cpu.max = "50000""#),
        (r#"{"cpu": {"quota": 50000, "period": 200000}}"#, r#"cpu.max = "50000 200000""#),
        (r#"{"cpu": {"quota": -1, "period": 100000}}"#, r#"cpu.max = "max 100000""#),
        (r#"{"cpu": {"quota": -7}}"#, r#"cpu.max = "max""#),
        (r#"{"cpu": {"period": 100000}}"#, r#"cpu.max = "max 100000""#),
        (r#"{"cpu": {"burst": 10}}"#, r#"cpu.max.burst = "10""#),
        (r#"{"cpu": {"burst": 10, "quota": 20}}"#, r#"cpu.max.burst = "10"; cpu.max = "20""#),
        (r#"{"cpu": {"idle": 1}}"#, r#"cpu.idle = "1""#),
        (r#"{"cpu": {"idle": 1, "shares": 0}}"#, r#"cpu.idle = "1""#),
        (r#"{"cpu": {"idle": 0, "shares": 2}}"#, r#"cpu.idle = "0"; cpu.weight = "1""#),
        (
            r#"{"cpu": {"idle": 1, "shares": 2}}"#,
            "refused: cpu.shares and cpu.idle exclude each other: an idle cgroup has no weight",
        ),
        (r#"{"cpu": {"cpus": "0-3,8", "mems": "0"}}"#, r#"cpuset.cpus = "0-3,8"; cpuset.mems = "0""#),
        (r#"{"cpu": {"realtimeRuntime": 0, "realtimePeriod": 0}}"#, ""),
        (
            r#"{"cpu": {"realtimeRuntime": 950000}}"#,
            "refused: cpu.realtimeRuntime does not exist in cgroup v2",
        ),
        (r#"{"cpu": {"realtimePeriod": 1}}"#, "refused: cpu.realtimePeriod does not exist in cgroup v2"),
    ]);
}

#[test]
fn a_burst_that_depends_on_the_quota_is_tried_twice() {
    let list = writes(&parse(r#"{"cpu": {"burst": 10, "period": 20}}"#), &Facts::default()).unwrap();
    assert_eq!(list[0].otherwise, Otherwise::AgainLater);
}

#[test]
fn memory_values() {
    check(&[
        (r#"{"memory": {}}"#, ""),
        (r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0}}"#, ""),
        (r#"{"memory": {"limit": 1000, "swap": 0}}"#, r#"memory.max = "1000""#),
        (r#"{"memory": {"swap": 0}}"#, r#"memory.swap.max = "0""#),
        (r#"{"memory": {"limit": 1000}}"#, r#"memory.max = "1000""#),
        (r#"{"memory": {"limit": -1}}"#, r#"memory.swap.max = "max"; memory.max = "max""#),
        (r#"{"memory": {"reservation": 500}}"#, r#"memory.low = "500""#),
        (r#"{"memory": {"reservation": -1}}"#, r#"memory.low = "max""#),
        (r#"{"memory": {"limit": 1000, "swap": 1500}}"#, r#"memory.swap.max = "500"; memory.max = "1000""#),
        (r#"{"memory": {"limit": 1000, "swap": 1000}}"#, r#"memory.swap.max = "0"; memory.max = "1000""#),
        (r#"{"memory": {"limit": 1000, "swap": -1}}"#, r#"memory.swap.max = "max"; memory.max = "1000""#),
        (r#"{"memory": {"limit": -1, "swap": 70}}"#, r#"memory.swap.max = "70"; memory.max = "max""#),
        (r#"{"memory": {"swap": -1}}"#, r#"memory.swap.max = "max""#),
        (r#"{"memory": {"swap": 10}}"#, "refused: unable to set swap limit without memory limit"),
        (
            r#"{"memory": {"limit": 1000, "swap": 999}}"#,
            "refused: memory+swap limit should be >= memory limit",
        ),
        (r#"{"memory": {"limit": -2}}"#, "refused: invalid memory.limit -2"),
        (r#"{"memory": {"reservation": -2}}"#, "refused: invalid memory.reservation -2"),
        (r#"{"memory": {"limit": 1, "swap": -2}}"#, "refused: invalid memory.swap -2"),
        (
            r#"{"memory": {"kernel": -1, "kernelTCP": 0, "disableOOMKiller": false, "useHierarchy": true}}"#,
            "",
        ),
        (
            r#"{"memory": {"kernel": 1}}"#,
            "refused: memory.kernel does not exist in cgroup v2: kernel memory counts towards memory.limit",
        ),
        (r#"{"memory": {"swappiness": 0}}"#, "refused: memory.swappiness does not exist in cgroup v2"),
        (
            r#"{"memory": {"disableOOMKiller": true}}"#,
            "refused: memory.disableOOMKiller does not exist in cgroup v2",
        ),
    ]);
}

#[test]
fn swap_that_is_not_there_need_not_be_limited() {
    for (json, missing_is_fine) in [
        (r#"{"memory": {"limit": 1000, "swap": 1000}}"#, true),
        (r#"{"memory": {"limit": 1000, "swap": -1}}"#, true),
        (r#"{"memory": {"limit": 1000, "swap": 1001}}"#, false),
    ] {
        let list = writes(&parse(json), &Facts::default()).unwrap();
        assert_eq!(list[0].file, "memory.swap.max");
        assert_eq!(list[0].otherwise == Otherwise::SkipIfMissing, missing_is_fine, "{json}");
    }
}

#[test]
fn updates_build_on_what_is_there() {
    let facts =
        Facts { memory_limit: Some(1000), memory_usage: Some(600), cpu_quota: Some("5000".to_owned()) };
    let table = [
        (r#"{"cpu": {"period": 20000}}"#, r#"cpu.max = "5000 20000""#),
        (r#"{"cpu": {"quota": -1}}"#, r#"cpu.max = "max""#),
        (r#"{"memory": {"swap": 1500}}"#, r#"memory.swap.max = "500""#),
        (r#"{"memory": {"swap": 900}}"#, "refused: memory+swap limit should be >= memory limit"),
        (r#"{"memory": {"limit": 100}}"#, r#"memory.max = "100""#),
        (
            r#"{"memory": {"limit": 600, "checkBeforeUpdate": true}}"#,
            "refused: rejecting memory limit 600 <= usage 600",
        ),
        (
            r#"{"memory": {"limit": 100, "swap": 200, "checkBeforeUpdate": true}}"#,
            "refused: rejecting memory+swap limit 200 <= usage 600",
        ),
        (r#"{"memory": {"limit": 601, "checkBeforeUpdate": true}}"#, r#"memory.max = "601""#),
        (
            r#"{"memory": {"limit": -1, "checkBeforeUpdate": true}}"#,
            r#"memory.swap.max = "max"; memory.max = "max""#,
        ),
    ];
    for (json, expected) in table {
        assert_eq!(told(json, &facts), expected, "{json}");
    }
    let unlimited = Facts { memory_limit: Some(-1), ..Facts::default() };
    assert_eq!(
        told(r#"{"memory": {"swap": 1500}}"#, &unlimited),
        "refused: unable to set swap limit without memory limit"
    );
}

#[test]
fn other_controllers() {
    check(&[
        (r#"{"pids": {}}"#, ""),
        (r#"{"pids": {"limit": 0}}"#, r#"pids.max = "1""#),
        (r#"{"pids": {"limit": 20}}"#, r#"pids.max = "20""#),
        (r#"{"pids": {"limit": -1}}"#, r#"pids.max = "max""#),
        (
            r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#,
            r#"hugetlb.2MB.max = "0"; hugetlb.2MB.rsvd.max = "0""#,
        ),
        (
            r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 0}]}"#,
            r#"refused: hugepageLimits: "../2MB" is not a page size such as 2MB"#,
        ),
        (
            r#"{"hugepageLimits": [{"pageSize": "MB", "limit": 0}]}"#,
            r#"refused: hugepageLimits: "MB" is not a page size such as 2MB"#,
        ),
        (
            r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}, "x": {}}}"#,
            r#"rdma.max = "mlx5_1 hca_handle=3 hca_object=10000"; rdma.max = "mlx4_0 hca_object=1""#,
        ),
        (r#"{"rdma": {"a b": {"hcaHandles": 3}}}"#, r#"refused: rdma: "a b" is not the name of a device"#),
        (r#"{"network": {"classID": 0, "priorities": []}}"#, ""),
        (r#"{"network": {"classID": 1}}"#, "refused: network.classID does not exist in cgroup v2"),
        (
            r#"{"network": {"priorities": [{"name": "eth0", "priority": 1}]}}"#,
            "refused: network.priorities does not exist in cgroup v2",
        ),
    ]);
}

#[test]
fn unified_comes_last_and_names_files_only() {
    check(&[
        (
            r#"{"unified": {"memory.max": "7"}, "memory": {"limit": 5}}"#,
            r#"memory.max = "5"; memory.max = "7""#,
        ),
        (
            r#"{"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "misc.max": ""}}"#,
            r#"io.max = "8:0 rbps=1"; io.max = "8:16 rbps=2"; misc.max = """#,
        ),
        (
            r#"{"unified": {"../x/memory.max": "7"}}"#,
            r#"refused: unified resource "../x/memory.max" must be a file name (no slashes)"#,
        ),
        (
            r#"{"unified": {"memory": "7"}}"#,
            r#"refused: unified resource "memory" must be in the form CONTROLLER.PARAMETER"#,
        ),
        (
            r#"{"unified": {"..": "7"}}"#,
            r#"refused: unified resource ".." must be in the form CONTROLLER.PARAMETER"#,
        ),
        (
            r#"{"unified": {"cgroup.procs": "7"}}"#,
            r#"refused: unified resource "cgroup.procs" is not a limit"#,
        ),
        (r#"{"unified": {"cgroup.max.depth": "7"}}"#, r#"cgroup.max.depth = "7""#),
    ]);
}

#[test]
fn the_controllers_a_request_needs() {
    let resources = parse(
        r#"{"cpu": {"shares": 5, "cpus": "0"}, "memory": {"limit": 5, "reservation": 4},
            "blockIO": {"weight": 10}, "unified": {"cgroup.max.depth": "1"}}"#,
    );
    let list = writes(&resources, &Facts::default()).unwrap();
    assert_eq!(controllers(&list), ["cpu", "cpuset", "io", "memory"]);
    assert!(controllers(&[]).is_empty());
}
