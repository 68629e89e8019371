//! Weighted fair queuing across containers and tenants, through `cpu.weight`.
//!
//! # Words
//! *terms* what one asks for: shares, reservation, limit, best effort · *leaf* a cgroup that is tuned ·
//! *demand* the CPUs a leaf could use now · *entitled* its hierarchical max-min share of what there is, as
//! generalised processor sharing (GPS) would give it · *received* what it used · *lag* entitled minus
//! received, counted only while it is saturated · *saturated* it always wants more than it gets ·
//! *meaning* what the kernel takes a weight for: the whole group's, or that of each CPU it is active on ·
//! *setting* what is written to a cgroup.
//!
//! # Units
//! CPUs are fractions of one CPU per second of time; lag is CPU-seconds; shares are relative, 1 being 1024 of
//! OCI's `cpu.shares`.
//!
//! # Pure and not
//! Samples go in, settings come out: `model`, `fill`, `queue`, `meter`, `meaning`, `trim`, `weight`, `squeeze`, the
//! policies and the `controller` that runs them read no file and no clock, and draw from a seeded generator.
//! `simulate` runs the same controller against a machine made of arithmetic. `sample` reads cgroups, `base`
//! writes them and remembers what they had before, and the `tuner` connects both to controllers. It never
//! knows containers, and it writes only to cgroups it was given.

pub mod base;
pub mod controller;
pub mod fill;
pub mod lottery;
pub mod meaning;
pub mod meter;
pub mod model;
pub mod plot;
pub mod policy;
pub mod queue;
pub mod quota;
pub mod random;
pub mod record;
pub mod sample;
pub mod simulate;
pub mod squeeze;
pub mod status;
pub mod strict;
pub mod terms;
pub mod trim;
pub mod tuned;
pub mod tuner;
pub mod weight;
pub mod wfq;
