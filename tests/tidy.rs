//! The tree is held to what `src/lib.rs` says about it: who imports whom, where `unsafe` lives, how long files
//! and functions get. A rule that is broken here is either wrong and changed there, or the code is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 70;

struct Source {
    path: String,
    /// The module right below the crate's root.
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let mut sources = Vec::new();
    for path in paths {
        let relative = path.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        sources.push(Source { path: format!("src/{}", relative.display()), module, text });
    }
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code without comments, and without what stands behind `#[cfg(test)]`, which closes a file.
fn code(source: &Source) -> Vec<(usize, &str)> {
    let test_file = source.path.ends_with("tests.rs") || source.path.contains("/tests/");
    let lines = source.text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines
        .take_while(|(_, line)| !test_file && line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number, line.split("//").next().unwrap_or("")))
        .collect()
}

fn layers(map: &str) -> BTreeMap<String, BTreeSet<String>> {
    let table = map.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once("->"));
    table
        .map(|(from, to)| (from.trim().to_owned(), to.split_whitespace().map(str::to_owned).collect()))
        .collect()
}

/// A macro that is exported stands at the crate's root, but belongs to the module that defines it.
fn macros(sources: &[Source]) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for source in sources {
        for part in source.text.split("#[macro_export]").skip(1) {
            let name = part.split("macro_rules!").nth(1).unwrap_or_default().trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(&name[..end], source.module.as_str());
        }
    }
    found
}

/// What stands right below the crate's root wherever it is named, alone or in braces, with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = code(source);
    let mut found = Vec::new();
    for (place, (number, line)) in code.iter().enumerate() {
        for prefix in ["crate::", "deja::"] {
            for (at, _) in line.match_indices(prefix) {
                let mut rest = line[at + prefix.len()..].to_owned();
                if rest.starts_with('{') {
                    // The list may go on over several lines.
                    rest.extend(code[place + 1..].iter().map(|(_, line)| *line));
                    found.extend(listed(&rest).into_iter().map(|name| (*number, name)));
                } else {
                    found.push((*number, first_word(&rest)));
                }
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The names in the outermost braces that `text` begins with.
fn listed(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, sign) in text.char_indices() {
        depth += i32::from(sign == '{') - i32::from(sign == '}');
        if depth == 1 && matches!(sign, '{' | ',') {
            names.push(first_word(&text[at + 1..]));
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[test]
fn modules_import_only_what_the_map_lists() {
    let sources = sources();
    let map = sources.iter().find(|source| source.path == "src/lib.rs").unwrap();
    let layers = layers(&map.text);
    assert!(layers.len() >= 10, "the table in src/lib.rs was not understood: {layers:?}");
    let macros = macros(&sources);
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.module != "lib") {
        let Some(allowed) = layers.get(&source.module) else {
            broken.push(format!("{}: module {:?} is not on the map", source.path, source.module));
            continue;
        };
        for (number, name) in imports(source) {
            let module = macros.get(name.as_str()).copied().unwrap_or(name.as_str());
            if module != source.module && !allowed.contains(module) {
                broken.push(format!("{}:{number}: {} imports {name}", source.path, source.module));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_sys_is_unsafe_and_talks_to_the_kernel_s_crates() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.module != "sys") {
        for (number, line) in code(source) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            for word in ["unsafe", "libc", "rustix", "nix"] {
                if words.contains(&word) {
                    broken.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_command_and_main_print() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !["command", "main"].contains(&source.module.as_str())) {
        for (number, line) in code(source) {
            if ["print!(", "println!(", "eprint!(", "eprintln!("].iter().any(|name| line.contains(name)) {
                broken.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_and_functions_stay_readable() {
    let mut broken = Vec::new();
    for source in &sources() {
        let code = code(source);
        if code.len() > LONGEST_FILE {
            broken.push(format!("{}: {} lines", source.path, code.len()));
        }
        let mut begin: Option<(usize, usize, &str)> = None;
        for (number, line) in code {
            let indent = line.len() - line.trim_start().len();
            let text = line.trim();
            let is_function =
                text.split_whitespace().take_while(|word| !word.contains('(')).any(|w| w == "fn")
                    || text.starts_with("fn ");
            match begin {
                None if is_function && !text.ends_with(';') && !text.ends_with('}') => {
                    begin = Some((number, indent, line));
                }
                Some((start, at, name)) if indent == at && text == "}" => {
                    if number - start >= LONGEST_FUNCTION {
                        let lines = number - start + 1;
                        broken.push(format!("{}:{start}: {lines} lines: {}", source.path, name.trim()));
                    }
                    begin = None;
                }
                _ => {}
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    let marks = ["TODO", "FIXME", "XXX", "HACK"].map(String::from);
    let mut broken = Vec::new();
    for source in &sources() {
        for (number, line) in source.text.lines().enumerate() {
            let marked = marks.iter().any(|mark| line.contains(mark.as_str()));
            if marked && !line.contains("(#") {
                broken.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
