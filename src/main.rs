//! Parse, dispatch, print one error, exit code.
#![no_main]

use std::ffi::OsString;

use deja::{cli, command, error, log, sys};

deja::program!(run);

fn run(arguments: Vec<OsString>) -> i32 {
    sys::entry::take_no_backtraces();
    if let Err(fault) = sys::entry::open_standard_streams() {
        log::error(&format!("open \"/dev/null\" for a standard stream that is closed: {fault}"));
        return 1;
    }
    match cli::parse(arguments.clone()) {
        Ok(invocation) => {
            begin_log(&invocation.global);
            command::run(&invocation, &arguments).unwrap_or_else(|failure| {
                log::error(&error::sentence(&failure));
                command::failure_code(&invocation.verb)
            })
        }
        Err(misuse) => {
            begin_log(&misuse.global);
            log::error(&error::sentence(&misuse.error));
            1
        }
    }
}

fn begin_log(global: &cli::Global) {
    log::begin(log::Log {
        destination: global.log.as_deref().map(log::Destination::parse).unwrap_or_default(),
        json: global.log_format == cli::LogFormat::Json,
        level: match global.level() {
            cli::Level::Error => log::Level::Error,
            cli::Level::Warning => log::Level::Warning,
            cli::Level::Debug => log::Level::Debug,
        },
    });
}
