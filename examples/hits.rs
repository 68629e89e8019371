//! How many hits the library gives in a second, without a process for each:
//! `hits COUNT STORE SESSION COMMAND...`, where the command was run before from the state it leads to. What it says goes to
//! standard output, the figure to standard error.

use std::ffi::{OsStr, OsString};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use deja::{cli, command};

fn main() -> Result<()> {
    let mut words = std::env::args_os().skip(1);
    let count: u32 = words.next().and_then(|word| word.to_str()?.parse().ok()).context("how many hits?")?;
    let store = words.next().context("which store?")?;
    let flags = ["deja", "session", "exec", "--store"].map(OsStr::new).map(OsStr::to_owned);
    let arguments: Vec<OsString> = flags.into_iter().chain([store]).chain(words).collect();
    let begin = Instant::now();
    for _ in 0..count {
        let invocation = cli::parse(arguments.clone()).map_err(|misuse| misuse.error)?;
        let code = command::run(&invocation, &arguments)?;
        ensure!(code == 0, "the command's exit code is {code}");
    }
    eprintln!("{:.0}", f64::from(count) / begin.elapsed().as_secs_f64());
    Ok(())
}
