//! Who is entitled to what: hierarchical weighted max-min, which is what generalised processor sharing would
//! give if time could be divided without end. Pure.
//!
//! Among siblings water rises at the same level for everybody: each has `max(reservation, level * shares)`,
//! but no more than it demands, and what one leaves the others get. A reservation is a guarantee, not a
//! bonus: whoever has more by its shares does not get it on top.

use super::model::{HOST, Tree};

/// One of those who share.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub weight: f64,
    pub floor: f64,
    pub demand: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    pub amounts: Vec<f64>,
    /// What a unit of weight is worth; infinite when every demand is met.
    pub level: f64,
}

impl Claim {
    fn at(&self, level: f64) -> f64 {
        self.floor.max(level * self.weight).min(self.demand)
    }
}

/// Divides `capacity` by weight, no more than demanded, no less than the floors if they fit.
pub fn fill(capacity: f64, claims: &[Claim]) -> Filled {
    let capacity = capacity.max(0.0);
    let wanted: f64 = claims.iter().map(|claim| claim.demand).sum();
    if wanted <= capacity {
        let amounts = claims.iter().map(|claim| claim.demand).collect();
        return Filled { amounts, level: f64::INFINITY };
    }
    let floors: f64 = claims.iter().map(|claim| claim.floor.min(claim.demand)).sum();
    if floors > capacity {
        // More is promised than there is: everybody's promise shrinks alike.
        let amounts = claims.iter().map(|claim| claim.floor.min(claim.demand) * capacity / floors).collect();
        return Filled { amounts, level: 0.0 };
    }
    let level = level(capacity, claims);
    Filled { amounts: claims.iter().map(|claim| claim.at(level)).collect(), level }
}

/// Where the water stands: between two of the levels at which somebody starts to rise above its floor or has
/// all it demands, the sum grows evenly.
fn level(capacity: f64, claims: &[Claim]) -> f64 {
    let mut turns: Vec<(f64, f64)> = Vec::with_capacity(claims.len() * 2);
    for claim in claims.iter().filter(|claim| claim.floor < claim.demand) {
        turns.push((claim.floor / claim.weight, claim.weight));
        turns.push((claim.demand / claim.weight, -claim.weight));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sum: f64 = claims.iter().map(|claim| claim.floor.min(claim.demand)).sum();
    let (mut rising, mut at) = (0.0, 0.0);
    for (turn, weight) in turns {
        let next = sum + rising * (turn - at);
        if next >= capacity && rising > 0.0 {
            return at + (capacity - sum) / rising;
        }
        (sum, at) = (next, turn);
        rising += weight;
    }
    at
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entitlement {
    /// CPUs each node is entitled to now.
    pub entitled: Vec<f64>,
    /// CPUs each node would stand for if it asked for more: what weights are made of.
    pub standing: Vec<f64>,
}

/// Divides `capacity` among the leaves of the tree, of which each demands what `demands` says.
pub fn entitle(tree: &Tree, demands: &[f64], capacity: f64) -> Entitlement {
    let wants = Wants::of(tree, demands);
    let mut entitled = vec![0.0; tree.nodes.len()];
    let mut standing = vec![0.0; tree.nodes.len()];
    entitled[HOST] = wants.demand[HOST].min(capacity);
    standing[HOST] = capacity;
    for (index, node) in tree.nodes.iter().enumerate().filter(|(_, node)| !node.children.is_empty()) {
        let claims: Vec<Claim> = node.children.iter().map(|child| wants.claim(tree, *child)).collect();
        for (child, amount) in node.children.iter().zip(fill(entitled[index], &claims).amounts) {
            entitled[*child] = amount;
        }
        let level = standing_level(standing[index], &claims);
        for (child, claim) in node.children.iter().zip(&claims) {
            let reserved = tree.nodes[*child].terms.reservation.max(claim.floor);
            standing[*child] = reserved.max(level * claim.weight);
        }
    }
    best_effort(tree, demands, capacity - entitled[HOST], &mut entitled);
    Entitlement { entitled, standing }
}

/// Demands and floors, summed up from the leaves; best effort counts for nothing here.
struct Wants {
    demand: Vec<f64>,
    floor: Vec<f64>,
}

impl Wants {
    fn of(tree: &Tree, demands: &[f64]) -> Self {
        let mut demand: Vec<f64> = vec![0.0; tree.nodes.len()];
        let mut floor: Vec<f64> = vec![0.0; tree.nodes.len()];
        for (index, node) in tree.nodes.iter().enumerate().rev() {
            if let Some(member) = node.member.filter(|_| !node.terms.best_effort) {
                demand[index] = demands[member].clamp(0.0, node.terms.limit);
            }
            floor[index] = floor[index].max(node.terms.reservation.min(demand[index]));
            if index != HOST {
                demand[node.parent] += demand[index];
                floor[node.parent] += floor[index];
            }
        }
        Self { demand, floor }
    }

    fn claim(&self, tree: &Tree, node: usize) -> Claim {
        let weight = tree.nodes[node].terms.shares;
        Claim { weight, floor: self.floor[node], demand: self.demand[node] }
    }
}

/// The level of those who share `capacity` and could ask for more. Where they do not, it is what the one that
/// asks for most would reach if it took the rest too; where nobody asks, the first to wake has everything.
fn standing_level(capacity: f64, claims: &[Claim]) -> f64 {
    let wanted: f64 = claims.iter().map(|claim| claim.demand).sum();
    if wanted > capacity {
        return fill(capacity, claims).level;
    }
    let rest = capacity - wanted;
    let most = claims
        .iter()
        .filter(|claim| claim.demand > 0.0)
        .max_by(|a, b| (a.demand / a.weight).total_cmp(&(b.demand / b.weight)));
    match most {
        Some(claim) => (claim.demand + rest) / claim.weight,
        None => capacity / claims.iter().map(|claim| claim.weight).fold(f64::MIN_POSITIVE, f64::max),
    }
}

/// What is left goes to those who asked for no more, in equal parts: the kernel knows no weights among them.
fn best_effort(tree: &Tree, demands: &[f64], left: f64, entitled: &mut [f64]) {
    let members: Vec<usize> =
        (0..tree.leaves.len()).filter(|member| tree.terms(*member).best_effort).collect();
    let claims: Vec<Claim> = members
        .iter()
        .map(|member| Claim {
            weight: 1.0,
            floor: 0.0,
            demand: demands[*member].clamp(0.0, tree.terms(*member).limit),
        })
        .collect();
    for (member, amount) in members.iter().zip(fill(left, &claims).amounts) {
        let mut node = tree.leaves[*member];
        while node != HOST {
            entitled[node] += amount;
            node = tree.nodes[node].parent;
        }
        entitled[HOST] += amount;
    }
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
