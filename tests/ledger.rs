//! runtime-spec/ledger.md accounts for everything: the properties of config.json as `src/spec` models them, the
//! verbs and flags of `src/cli`, and what `deja features` answers; and every file and test it names is there.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

fn tree(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}"))
}

/// The rows of the tables below a heading, as cells, without the head of each table.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let ledger = tree("runtime-spec/ledger.md");
    let section = ledger.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("the ledger has no section {heading:?}"));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")) {
        rows.push(line.split(" | ").map(|cell| cell.trim().to_owned()).collect());
    }
    let lines: Vec<&str> = section.lines().collect();
    let heads = lines.windows(2).filter(|pair| pair[1].starts_with("|---")).map(|pair| pair[0]);
    let heads: BTreeSet<&str> = heads.collect();
    assert!(!heads.is_empty(), "no table below {heading:?}");
    rows.retain(|row| !heads.contains(format!("| {} |", row.join(" | ")).as_str()));
    rows
}

/// What both sides should have in common, and only one has.
#[track_caller]
fn assert_same(what: &str, there: BTreeSet<String>, ledger: BTreeSet<String>) {
    let unaccounted: Vec<&String> = there.difference(&ledger).collect();
    let unfounded: Vec<&String> = ledger.difference(&there).collect();
    assert!(
        unaccounted.is_empty() && unfounded.is_empty(),
        "{what}: not in the ledger: {unaccounted:?}; only in the ledger: {unfounded:?}"
    );
}

/// A property as the model has it: its name in JSON and its type in Rust.
type Fields = Vec<(String, String)>;

/// Every struct of the model with its properties, read from the source.
fn model() -> BTreeMap<String, Fields> {
    let mut structs = BTreeMap::new();
    for file in ["mod", "process", "linux", "resources", "seccomp"] {
        let text = tree(&format!("src/spec/{file}.rs"));
        let mut attributes = String::new();
        let mut open: Option<(String, bool, Fields)> = None;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[") {
                attributes.push_str(line);
                continue;
            }
            if let Some(rest) = line.strip_prefix("pub struct ") {
                let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                open = Some((name.to_owned(), attributes.contains("camelCase"), Vec::new()));
            } else if let (Some((_, camel, fields)), Some(field)) = (&mut open, line.strip_prefix("pub ")) {
                let (name, kind) = field.trim_end_matches(',').split_once(": ").expect("a field");
                let renamed = attributes.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
                let plain = if *camel { camel_case(name) } else { name.to_owned() };
                fields.push((renamed.map_or(plain, str::to_owned), kind.to_owned()));
            } else if line == "}" {
                structs.extend(open.take().map(|(name, _, fields)| (name, fields)));
            }
            if !line.starts_with("//") {
                attributes.clear();
            }
        }
    }
    assert!(structs.len() > 30 && structs.contains_key("Spec"), "the model was not understood");
    structs
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        text + &head.to_uppercase() + tail
    })
}

/// The properties below a struct that hold values; `[]` behind a list, `{}` behind a map.
fn leaves(model: &BTreeMap<String, Fields>, name: &str, prefix: &str, found: &mut BTreeSet<String>) {
    for (field, kind) in &model[name] {
        let mut path = format!("{prefix}{field}");
        // Kept as text in `Linux`, and parsed on its own.
        let kind = if path == "linux.seccomp" { "Option<Seccomp>" } else { kind };
        let words = kind.split(|c: char| !c.is_alphanumeric());
        match words.into_iter().find(|word| model.contains_key(*word)) {
            None => drop(found.insert(path)),
            Some(inner) => {
                path += if kind.contains("List<") { "[]" } else { "" };
                path += if kind.contains("Map<") { "{}" } else { "" };
                leaves(model, inner, &format!("{path}."), found);
            }
        }
    }
}

#[test]
fn every_property_of_the_model_is_accounted_for() {
    let mut there = BTreeSet::new();
    leaves(&model(), "Spec", "", &mut there);
    assert!(there.contains("linux.seccomp.syscalls[].args[].valueTwo") && there.len() > 150, "{there:?}");
    let ledger = rows("config.json").into_iter().map(|row| row[0].clone()).collect();
    assert_same("config.json", there, ledger);
}

#[test]
fn every_verb_and_flag_is_accounted_for() {
    let long = |flags: &'static [&'static [deja::cli::Flag]]| flags.iter().flat_map(|group| group.iter());
    let mut there: BTreeSet<String> =
        long(deja::cli::Global::FLAGS).map(|flag| format!("--{}", flag.long)).collect();
    for page in deja::cli::PAGES {
        there.insert(page.name.to_owned());
        there.extend(long(page.flags).map(|flag| format!("{} --{}", page.name, flag.long)));
    }
    let ledger = rows("Command line").into_iter().map(|row| row[0].clone()).collect();
    assert_same("the command line", there, ledger);
}

/// Every list and every yes or no of `features`, by its path.
fn answers(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if path == "annotations" => {
            found.extend(map.keys().map(|key| format!("{path}: {key}")));
        }
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                answers(value, &format!("{path}{dot}{key}"), found);
            }
        }
        Value::Array(list) => {
            let words = list.iter().map(|word| word.as_str().expect("lists of words"));
            found.extend(words.map(|word| format!("{path}: {word}")));
        }
        Value::Bool(answer) => drop(found.insert(format!("{path}: {answer}"))),
        _ => (),
    }
}

#[test]
fn features_say_what_the_ledger_says() {
    let features = support::Deja::bare().arg("features").ok().json();
    assert_eq!(features["ociVersionMax"], deja::spec::VERSION);
    let mut there = BTreeSet::new();
    answers(&features, "", &mut there);
    let mut ledger = BTreeSet::new();
    for row in rows("deja features") {
        ledger.extend(row[1].split_whitespace().map(|word| format!("{}: {word}", row[0])));
    }
    assert_same("features", there, ledger);
}

#[test]
fn every_place_and_every_proof_is_there() {
    let mut missing = Vec::new();
    for heading in ["config.json", "Command line", "deja features"] {
        for row in rows(heading) {
            let [.., place, proofs] = row.as_slice() else { panic!("a row of one cell: {row:?}") };
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join(place).exists() {
                missing.push(format!("{}: no file {place:?}", row[0]));
            }
            if proofs.is_empty() {
                missing.push(format!("{}: nothing proves it", row[0]));
            }
            for proof in proofs.split_whitespace() {
                if !is_a_test(proof) {
                    missing.push(format!("{}: no test {proof:?}", row[0]));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_known_attack_has_its_test() {
    let text = tree("docs/security.md");
    let table = text.split("\n## Known attacks").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows: Vec<&str> = table.expect("a table").lines().filter(|line| line.starts_with("| CVE-")).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let proofs = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        assert!(!proofs.is_empty(), "{row}");
        proofs.split_whitespace().for_each(|proof| assert!(is_a_test(proof), "{proof} is no test"));
    }
}

/// `FILE::NAME`, a function behind `#[test]` or in `proptest!`.
fn is_a_test(proof: &str) -> bool {
    let Some((file, name)) = proof.split_once("::") else { return false };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begin = format!("fn {name}(");
    lines.iter().enumerate().any(|(number, line)| {
        let above =
            lines[..number].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        line.starts_with(&begin) && above.into_iter().any(|line| *line == "#[test]")
    })
}

/// The example bundles are what they claim to be: valid, and each about something.
#[test]
fn the_examples_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime-spec/examples");
    let mut count = 0;
    for entry in fs::read_dir(&directory).expect("the examples").flatten() {
        let path = entry.path().join("config.json");
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}"));
        let spec = deja::spec::load(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error:#}"));
        deja::spec::validate(&spec).unwrap_or_else(|error| panic!("{path:?}: {error:#}"));
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}
