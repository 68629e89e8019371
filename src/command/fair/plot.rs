//! `fair plot`: a recording as a picture.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::cli;
use crate::fair::plot::draw;
use crate::fair::record;
use crate::plot;

pub fn run(arguments: &cli::FairPlot) -> Result<()> {
    let path = &arguments.recording;
    let text = fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
    let points = record::parse(&text).with_context(|| format!("{path:?}"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let title = arguments.title.as_deref().unwrap_or(&name);
    let Some(shapes) = draw(title, &points) else {
        bail!("{path:?} holds no samples");
    };
    match &arguments.output {
        Some(output) => {
            fs::write(output, plot::file(&shapes, output)).with_context(|| format!("write {output:?}"))
        }
        None => super::super::print(&plot::svg::write(&shapes)),
    }
}
