//! `create`: makes a container that waits for `start`.

use anyhow::Result;

use super::birth::{self, Request, Room};
use super::blueprint::Blueprint;
use super::bundle::Bundle;
use super::notify::Manager;
use crate::cli::{self, Global};

pub fn run(global: &Global, arguments: &cli::Create) -> Result<()> {
    let store = super::store(global)?;
    let bundle = Bundle::of(&arguments.launch)?;
    let mut spec = bundle.spec()?;
    let manager = Manager::for_new(&store.root().join(&arguments.id), &mut spec)?;
    let mut blueprint = Blueprint::draw(&spec, &bundle.path, &store)?;
    let request = Request {
        global,
        id: &arguments.id,
        options: &arguments.launch,
        hold: true,
        detached: true,
        manager: manager.as_ref(),
    };
    let mut room = Room::default();
    let birth = birth::bring_up(&request, &store, &mut blueprint, &bundle.config, &mut room)?;
    birth.settle().map(drop)
}
