//! `run`: create, start, wait and delete in one go.

use anyhow::Result;

use super::birth::{self, Request, Room};
use super::blueprint::Blueprint;
use super::bundle::Bundle;
use super::foreground::Foreground;
use super::notify::Manager;
use super::{delete, start};
use crate::cli::{self, Global};
use crate::launch::Milestone;
use crate::sys::process;
use crate::sys::{AsRawFd, borrow};
use crate::trial;

pub fn run(global: &Global, arguments: &cli::Run) -> Result<i32> {
    let store = super::store(global)?;
    let bundle = Bundle::of(&arguments.launch)?;
    let mut spec = bundle.spec()?;
    let manager = Manager::for_new(&store.root().join(&arguments.id), &mut spec)?;
    let mut blueprint = Blueprint::draw(&spec, &bundle.path, &store)?;
    let detached = arguments.detach;
    let request = Request {
        global,
        id: &arguments.id,
        options: &arguments.launch,
        hold: false,
        detached,
        manager: manager.as_ref(),
    };
    if !detached && !arguments.no_subreaper {
        process::set_child_subreaper()?;
    }
    let foreground = (!detached).then(Foreground::begin).transpose()?;
    let mut room = Room::default();
    let mut birth = birth::bring_up(&request, &store, &mut blueprint, &bundle.config, &mut room)?;
    trial::point("wait for init")?;
    let record = &birth.record;
    let started = match blueprint.asks_late() {
        true => birth.launch.until(Milestone::Running, &mut |question| start::answer(question, record)),
        false => birth.launch.until_silent(),
    };
    started.map_err(|error| birth.diagnose(error))?;

    let (master, messenger) = (birth.master.take(), birth.messenger.take());
    // It stays open: settling closes nothing.
    let (pid, pidfd) = (birth.launch.pid, borrow(birth.launch.pidfd.as_raw_fd()));
    let container = birth.settle()?;
    let poststart = start::poststart(&container);
    let Some(mut foreground) = foreground else {
        if let Err(error) = poststart {
            process::wait(pidfd)?;
            delete::ended(container)?;
            return Err(error);
        }
        if let Some(messenger) = messenger {
            messenger.wait(pidfd, container.record.pid)?;
        }
        return Ok(0);
    };
    foreground.passes_on(messenger);
    let exit = match (&poststart, master) {
        (Err(_), _) => process::wait(pidfd)?,
        (Ok(()), Some(master)) => foreground.wait_with_terminal(pid, pidfd, master)?,
        (Ok(()), None) => foreground.wait(pid, pidfd)?,
    };
    trial::point("delete")?;
    if !arguments.keep {
        delete::ended(container)?;
    }
    poststart.map(|()| exit.code())
}
