//! A state as an image layout.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::{LABEL, Origin, pack};
use crate::oci::{Contents, Layout, Settings};
use crate::session::layer;
use crate::session::state::State;
use crate::session::store::Store;

/// Writes the layout of an image of `state`, called `reference`, into the directory `to`, which is there and empty.
pub fn write(store: &Store, state: &State, to: &Path, reference: &str) -> Result<()> {
    let mut layout = Layout::begin(to)?;
    store.chain(state)?;
    for id in &state.layers {
        let tree = layer::open_directory(&store.layer(id))?;
        layout.layer(|to| pack(&tree, to)).with_context(|| format!("layer {}", id.short()))?;
    }
    layout.finish(Contents { reference, settings: settings(state)?, ..Contents::default() })
}

fn settings(state: &State) -> Result<Settings> {
    let context = &state.context;
    let origin = Origin { umask: context.umask, clock: state.clock };
    let origin = serde_json::to_string(&origin).context("write the image's label")?;
    Ok(Settings {
        env: Some(context.environment.clone()),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        working_dir: Some(context.cwd.clone()),
        labels: Some(BTreeMap::from([(LABEL.to_owned(), origin)])),
    })
}
