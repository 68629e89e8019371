//! Completions for bash, zsh and fish. What a value may be is read from its name in the table: FILE and
//! SOCKET are files, DIR is a directory, `a|b|c` are the words themselves. Ids come from `deja list -q`.

use super::shared::Global;
use super::table::{self, Flag, HELP, Page};
use super::verbs::PAGES;

pub const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The script for a shell; None: deja does not know the shell.
pub fn completion(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

enum Candidates {
    None,
    Files,
    Directories,
    Words(String),
}

fn candidates(value: &str) -> Candidates {
    match value {
        "FILE" | "SOCKET" => Candidates::Files,
        "DIR" => Candidates::Directories,
        words if words.contains('|') => Candidates::Words(words.replace('|', " ")),
        _ => Candidates::None,
    }
}

fn verbs() -> impl Iterator<Item = &'static &'static Page> {
    PAGES.iter().filter(|page| !page.hidden)
}

/// What the first word may be; the second, behind those that have one.
fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = verbs().map(|page| first_word(page.name)).collect();
    words.dedup();
    words
}

fn first_word(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

fn families() -> Vec<&'static str> {
    let mut names: Vec<&str> = verbs().filter_map(|page| Some(page.name.split_once(' ')?.0)).collect();
    names.dedup();
    names
}

fn second_words(family: &str) -> String {
    table::seconds(PAGES, family).join(" ")
}

fn global_flags() -> impl Iterator<Item = &'static Flag> {
    Global::OWN.iter().filter(|flag| !flag.hidden).chain([&HELP])
}

fn verb_flags(page: &'static Page) -> impl Iterator<Item = &'static Flag> {
    page.shown_flags().chain([&HELP])
}

fn spellings(flag: &Flag) -> String {
    match flag.short {
        Some(short) => format!("--{} -{short}", flag.long),
        None => format!("--{}", flag.long),
    }
}

fn words<'f>(flags: impl Iterator<Item = &'f Flag>) -> String {
    flags.map(spellings).collect::<Vec<_>>().join(" ")
}

fn bash_value(flag: &Flag) -> Option<String> {
    let action = match candidates(flag.value) {
        _ if !flag.takes_value() => return None,
        Candidates::None => "COMPREPLY=()".to_owned(),
        Candidates::Files => "COMPREPLY=($(compgen -f -- \"$cur\"))".to_owned(),
        Candidates::Directories => "COMPREPLY=($(compgen -d -- \"$cur\"))".to_owned(),
        Candidates::Words(words) => format!("COMPREPLY=($(compgen -W '{words}' -- \"$cur\"))"),
    };
    Some(format!("        {}) {action}; return ;;\n", spellings(flag).replace(' ', "|")))
}

fn bash_values<'f>(flags: impl Iterator<Item = &'f Flag>) -> String {
    flags.filter_map(bash_value).collect()
}

/// The words that may stand behind a verb's flags.
fn bash_words(page: &Page) -> String {
    match page.name {
        "help" => format!("-W '{}'", first_words().join(" ")),
        "completion" => format!("-W '{}'", SHELLS.join(" ")),
        "man" => "-d".to_owned(),
        _ if page.arguments.contains("<container-id>") => "-W \"$(deja list -q 2>/dev/null)\"".to_owned(),
        _ => "-W ''".to_owned(),
    }
}

fn bash() -> String {
    let names = first_words();
    let valued = words(global_flags().filter(|flag| flag.takes_value())).replace(' ', "|");
    let mut cases = String::new();
    for page in verbs() {
        cases.push_str(&format!(
            "    '{}')\n        case \"$prev\" in\n{}        esac\n        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '{}' -- \"$cur\"))\n        else COMPREPLY=($(compgen {} -- \"$cur\")); fi ;;\n",
            page.name,
            bash_values(verb_flags(page)),
            words(verb_flags(page)),
            bash_words(page),
        ));
    }
    for family in families() {
        let words = second_words(family);
        cases.push_str(&format!("    {family}) COMPREPLY=($(compgen -W '{words}' -- \"$cur\")) ;;\n"));
    }
    let families = families().join("|");
    format!(
        "# bash completion for deja
_deja() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} verb='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {valued}) ((i++)) ;;
        -*) ;;
        *) verb=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $verb in
    {families}) ((i + 1 < COMP_CWORD)) && verb+=\" ${{COMP_WORDS[i+1]}}\" ;;
    esac
    case $verb in
    '')
        case \"$prev\" in
{}        esac
        COMPREPLY=($(compgen -W '{} {}' -- \"$cur\")) ;;
{cases}    esac
}}
complete -F _deja deja
",
        bash_values(global_flags()),
        names.join(" "),
        words(global_flags()),
    )
}

fn zsh_quote(text: &str) -> String {
    text.replace('\'', "'\\''").replace('[', "(").replace(']', ")").replace(':', " -")
}

fn zsh_flag(flag: &Flag) -> String {
    let help = zsh_quote(flag.help);
    let value = match candidates(flag.value) {
        _ if !flag.takes_value() => String::new(),
        Candidates::None => ":value: ".to_owned(),
        Candidates::Files => ":file:_files".to_owned(),
        Candidates::Directories => ":directory:_files -/".to_owned(),
        Candidates::Words(words) => format!(":value:({words})"),
    };
    match flag.short {
        Some(short) => format!(" '*'{{-{short},--{}}}'[{help}]{value}'", flag.long),
        None => format!(" '*--{}[{help}]{value}'", flag.long),
    }
}

fn zsh_words(page: &Page) -> &'static str {
    match page.name {
        "help" => "'1:verb:_deja_verbs'",
        "completion" => "'1:shell:(bash zsh fish)'",
        "man" => "'1:directory:_files -/'",
        _ if page.arguments.contains("<container-id>") => "'1:container:_deja_ids' '*:argument: '",
        _ => "",
    }
}

fn zsh_case(indent: &str, word: &str, page: &'static Page) -> String {
    let flags: String = verb_flags(page).map(zsh_flag).collect();
    format!("{indent}{word}) _arguments{flags} {} ;;\n", zsh_words(page))
}

fn zsh_family(family: &str) -> String {
    let mut cases = String::new();
    for page in verbs() {
        if let Some((_, action)) = page.name.split_once(' ').filter(|name| name.0 == family) {
            cases.push_str(&zsh_case("        ", action, page));
        }
    }
    let words = second_words(family);
    format!(
        "    {family})
        _arguments -C '1:action:({words})' '*::argument:->action'
        case $line[1] in
{cases}        esac ;;\n"
    )
}

fn zsh() -> String {
    let mut described = String::new();
    let mut cases = String::new();
    for page in verbs().filter(|page| !page.name.contains(' ')) {
        described.push_str(&format!(" '{}:{}'", page.name, zsh_quote(page.summary)));
        cases.push_str(&zsh_case("    ", page.name, page));
    }
    for family in families() {
        described.push_str(&format!(" '{family}:{}'", second_words(family)));
        cases.push_str(&zsh_family(family));
    }
    let global: String = global_flags().map(zsh_flag).collect();
    format!(
        "#compdef deja
_deja_ids() {{ local -a ids; ids=(${{(f)\"$(deja list -q 2>/dev/null)\"}}); compadd -a ids }}
_deja_verbs() {{ local -a verbs; verbs=({described} ); _describe verb verbs }}
_deja() {{
    local line state
    _arguments -C{global} '1:verb:_deja_verbs' '*::argument:->verb'
    case $state in (verb) ;; (*) return ;; esac
    case $line[1] in
{cases}    esac
}}
compdef _deja deja
"
    )
}

fn fish_flag(condition: &str, flag: &Flag) -> String {
    let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
    let value = match candidates(flag.value) {
        _ if !flag.takes_value() => String::new(),
        Candidates::None => " -x".to_owned(),
        Candidates::Files => " -r -F".to_owned(),
        Candidates::Directories => " -x -a '(__fish_complete_directories)'".to_owned(),
        Candidates::Words(words) => format!(" -x -a '{words}'"),
    };
    let help = flag.help.replace('\'', "\\'");
    format!("complete -c deja -n '{condition}' -l {}{short}{value} -d '{help}'\n", flag.long)
}

/// When a verb's own word is due, the word, and when its flags are.
fn fish_conditions(name: &'static str) -> (String, &'static str, String) {
    let seen = "__fish_seen_subcommand_from";
    match name.split_once(' ') {
        Some((family, action)) => {
            let others = second_words(family);
            let before = format!("{seen} {family}; and not {seen} {others}");
            (before, action, format!("{seen} {family}; and {seen} {action}"))
        }
        None => {
            let families = families().join(" ");
            let condition = format!("{seen} {name}; and not {seen} {families}");
            ("__fish_use_subcommand".to_owned(), name, condition)
        }
    }
}

fn fish() -> String {
    let mut text = "# fish completion for deja\ncomplete -c deja -f\n".to_owned();
    for flag in global_flags() {
        text.push_str(&fish_flag("__fish_use_subcommand", flag));
    }
    for family in families() {
        let words = second_words(family);
        text.push_str(&format!("complete -c deja -n __fish_use_subcommand -a {family} -d '{words}'\n"));
    }
    for page in verbs() {
        let summary = page.summary.replace('\'', "\\'");
        let (before, word, condition) = fish_conditions(page.name);
        text.push_str(&format!("complete -c deja -n '{before}' -a {word} -d '{summary}'\n"));
        for flag in verb_flags(page) {
            text.push_str(&fish_flag(&condition, flag));
        }
        let words = match page.name {
            "help" => first_words().join(" "),
            "completion" => SHELLS.join(" "),
            "man" => "(__fish_complete_directories)".to_owned(),
            _ if page.arguments.contains("<container-id>") => "(deja list -q 2>/dev/null)".to_owned(),
            _ => continue,
        };
        text.push_str(&format!("complete -c deja -n '{condition}' -a '{words}'\n"));
    }
    text
}
