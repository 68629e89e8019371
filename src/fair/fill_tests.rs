use proptest::prelude::*;

use super::super::model::tests::{member, tree};
use super::super::model::{Groups, Member, Terms, Tree};
use super::*;

fn shared(capacity: f64, claims: &[(f64, f64, f64)]) -> Vec<f64> {
    let claims: Vec<Claim> = claims
        .iter()
        .map(|(weight, floor, demand)| Claim { weight: *weight, floor: *floor, demand: *demand })
        .collect();
    fill(capacity, &claims).amounts.iter().map(|amount| (amount * 1e6).round() / 1e6).collect()
}

type Row = (f64, &'static [(f64, f64, f64)], &'static [f64]);

#[test]
fn water_finds_its_level() {
    let table: &[Row] = &[
        (2.0, &[(1.0, 0.0, 9.0), (1.0, 0.0, 9.0)], &[1.0, 1.0]),
        (3.0, &[(1.0, 0.0, 9.0), (2.0, 0.0, 9.0)], &[1.0, 2.0]),
        (2.0, &[(1.0, 0.0, 0.5), (1.0, 0.0, 9.0)], &[0.5, 1.5]),
        (4.0, &[(3.0, 0.0, 1.0), (1.0, 0.0, 9.0)], &[1.0, 3.0]),
        (2.0, &[(1.0, 0.0, 0.5), (1.0, 0.0, 0.7)], &[0.5, 0.7]),
        // A reservation lifts whoever would have less, and is no bonus to whoever has more.
        (2.0, &[(1.0, 1.5, 9.0), (3.0, 0.0, 9.0)], &[1.5, 0.5]),
        (2.0, &[(3.0, 0.5, 9.0), (1.0, 0.0, 9.0)], &[1.5, 0.5]),
        // More promised than there is.
        (1.0, &[(1.0, 1.0, 9.0), (1.0, 3.0, 9.0), (9.0, 0.0, 9.0)], &[0.25, 0.75, 0.0]),
        (0.0, &[(1.0, 0.0, 1.0)], &[0.0]),
        (1.0, &[], &[]),
    ];
    for (capacity, claims, expected) in table {
        assert_eq!(shared(*capacity, claims), *expected, "{capacity} among {claims:?}");
    }
}

fn entitled(tree: &Tree, demands: &[f64], capacity: f64) -> Vec<f64> {
    let all = entitle(tree, demands, capacity).entitled;
    tree.leaves.iter().map(|leaf| (all[*leaf] * 1e6).round() / 1e6).collect()
}

#[test]
fn a_tenant_with_five_containers_has_no_more_than_one_with_one() {
    let names = ["ann/1", "ann/2", "ann/3", "ann/4", "ann/5", "bob/1"];
    let tree = tree(&names.map(|name| (name, 1.0)));
    assert_eq!(entitled(&tree, &[9.0; 6], 2.0), [0.2, 0.2, 0.2, 0.2, 0.2, 1.0]);
    // What a sibling leaves stays in the family first.
    assert_eq!(entitled(&tree, &[0.0, 0.0, 0.0, 0.1, 9.0, 9.0], 2.0), [0.0, 0.0, 0.0, 0.1, 0.9, 1.0]);
    assert_eq!(entitled(&tree, &[0.0, 0.0, 0.0, 0.1, 0.1, 9.0], 2.0), [0.0, 0.0, 0.0, 0.1, 0.1, 1.8]);
}

#[test]
fn best_effort_has_what_is_left() {
    let mut low = member(2, "low", 50.0);
    low.terms.best_effort = true;
    let members = [member(0, "a", 1.0), member(1, "b", 1.0), low];
    let tree = Tree::build(&members, &Groups::new());
    assert_eq!(entitled(&tree, &[9.0, 9.0, 9.0], 2.0), [1.0, 1.0, 0.0]);
    assert_eq!(entitled(&tree, &[0.5, 1.0, 9.0], 2.0), [0.5, 1.0, 0.5]);
}

#[test]
fn a_reservation_reaches_through_the_levels() {
    let mut safe = member(0, "students/ann/safe", 1.0);
    safe.terms.reservation = 1.0;
    let members = [safe, member(1, "students/bob/x", 1.0), member(2, "staff/eve/x", 8.0)];
    let groups = Groups::from([("staff".to_owned(), Terms::of_shares(9.0))]);
    let tree = Tree::build(&members, &groups);
    assert_eq!(entitled(&tree, &[9.0; 3], 2.0), [1.0, 0.0, 1.0]);
    assert_eq!(entitled(&tree, &[0.0, 9.0, 9.0], 2.0), [0.0, 0.2, 1.8]);
}

#[test]
fn standing_among_equals_does_not_depend_on_who_is_awake() {
    let tree = tree(&[("a", 1.0), ("b", 2.0), ("c", 1.0)]);
    for demands in [[9.0, 9.0, 9.0], [9.0, 0.0, 0.0], [0.0; 3], [0.1, 9.0, 0.0], [0.1, 0.1, 0.5]] {
        let all = entitle(&tree, &demands, 2.0).standing;
        let of: Vec<f64> = tree.leaves.iter().map(|leaf| all[*leaf]).collect();
        assert!(
            (of[1] / of[0] - 2.0).abs() < 1e-9 && (of[2] / of[0] - 1.0).abs() < 1e-9,
            "{demands:?}: {of:?}"
        );
    }
}

fn forest() -> impl Strategy<Value = (Vec<Member>, Vec<f64>, f64)> {
    let leaf = (0u8..3, 0u8..4, 0.01f64..100.0, 0.0f64..1.0, prop::bool::weighted(0.1), 0.0f64..4.0);
    (prop::collection::vec(leaf, 1..20), 0.1f64..16.0).prop_map(|(leaves, capacity)| {
        let demands = leaves.iter().map(|leaf| leaf.5).collect();
        let members =
            leaves.iter().enumerate().map(|(key, (class, tenant, shares, reservation, idle, _))| {
                let mut member = member(key as u64, &format!("c{class}/t{tenant}/{key}"), *shares);
                member.terms.best_effort = *idle;
                member.terms.reservation = if *idle || *reservation > 0.2 { 0.0 } else { *reservation };
                member
            });
        (members.collect(), demands, capacity)
    })
}

proptest! {
    #[test]
    fn entitlements_sum_to_what_there_is((members, demands, capacity) in forest()) {
        let tree = Tree::build(&members, &Groups::new());
        let all = entitle(&tree, &demands, capacity).entitled;
        let sum: f64 = tree.leaves.iter().map(|leaf| all[*leaf]).sum();
        let wanted: f64 = demands.iter().sum();
        prop_assert!((sum - wanted.min(capacity)).abs() < 1e-6, "{sum} of {capacity}, {wanted} wanted");
        for (member, leaf) in tree.leaves.iter().enumerate() {
            prop_assert!(all[*leaf] <= demands[member] + 1e-9 && all[*leaf] >= -1e-9);
        }
        for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| node.member.is_none()) {
            let below: f64 = node.children.iter().map(|child| all[*child]).sum();
            prop_assert!((below - all[index]).abs() < 1e-6);
        }
    }

    #[test]
    fn nobody_below_its_demand_has_less_per_share_than_a_sibling((members, demands, capacity) in forest()) {
        let members: Vec<Member> = members.into_iter().map(|mut member| {
            member.terms.reservation = 0.0;
            member.terms.best_effort = false;
            member
        }).collect();
        let tree = Tree::build(&members, &Groups::new());
        let all = entitle(&tree, &demands, capacity).entitled;
        let wanted = tree.sum(&demands);
        for node in &tree.nodes {
            for a in &node.children {
                for b in &node.children {
                    if all[*a] < wanted[*a] - 1e-6 {
                        let (mine, theirs) = (all[*a] / tree.nodes[*a].terms.shares, all[*b] / tree.nodes[*b].terms.shares);
                        prop_assert!(theirs <= mine + 1e-6, "{theirs} above {mine}");
                    }
                }
            }
        }
    }

    #[test]
    fn asking_for_more_never_gives_less((members, demands, capacity) in forest(), more in 0.0f64..4.0) {
        let tree = Tree::build(&members, &Groups::new());
        let before = entitle(&tree, &demands, capacity).entitled[tree.leaves[0]];
        let mut demands = demands;
        demands[0] += more;
        prop_assert!(entitle(&tree, &demands, capacity).entitled[tree.leaves[0]] >= before - 1e-9);
    }
}
