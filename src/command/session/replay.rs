//! Saying what a command said: as it was written, in its time, or as JSON.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::capture::write_all;
use crate::session::Id;
use crate::session::journal::Act;
use crate::session::transition::{Piece, Stream, Transition};

/// A command's result as one object, for `--json`; bytes that are not UTF-8 are replaced.
#[derive(Serialize)]
struct Told<'t> {
    act: Act,
    state: Id,
    code: i32,
    micros: u64,
    stdout: &'t str,
    stderr: &'t str,
}

pub fn tell(act: Act, transition: &Transition) -> Result<()> {
    let [out, err] = [Stream::Out, Stream::Err].map(|stream| written(&transition.output, stream));
    super::print_json(&Told {
        act,
        state: transition.head.to,
        code: transition.head.code,
        micros: transition.head.micros,
        stdout: &String::from_utf8_lossy(&out),
        stderr: &String::from_utf8_lossy(&err),
    })
}

/// Everything that was written to one stream.
pub fn written(output: &[Piece], stream: Stream) -> Vec<u8> {
    let pieces = output.iter().filter(|piece| piece.stream == stream);
    pieces.flat_map(|piece| piece.bytes.iter().copied()).collect()
}

/// Writes what the command wrote, in its order; with `timing` also in its time.
pub fn replay(output: &[Piece], timing: bool) -> Result<()> {
    let begin = Instant::now();
    let number = |stream: Stream| if stream == Stream::Out { 1 } else { 2 };
    if timing {
        for piece in output {
            std::thread::sleep(piece.after.saturating_sub(begin.elapsed()));
            write_all(number(piece.stream), &piece.bytes)?;
        }
        return Ok(());
    }
    for run in output.chunk_by(|one, next| one.stream == next.stream) {
        let bytes: Vec<u8> = run.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
        write_all(number(run[0].stream), &bytes)?;
    }
    Ok(())
}

/// So many of something.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A duration people can read.
pub fn shown_time(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match time.as_secs() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..=99 => format!("{:.2} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [0u64, 1, 2].map(|count| counted(count, "hit")),
            ["0 hits", "1 hit", "2 hits"].map(str::to_owned)
        );
    }

    #[test]
    fn durations_are_readable() {
        let table =
            [(1_500, "1.5 ms"), (999_900, "999.9 ms"), (2_500_000, "2.50 s"), (125_000_000, "2 min 5 s")];
        for (micros, text) in table {
            assert_eq!(shown_time(micros), text);
        }
    }
}
