//! The cgroup of a new container: where it goes, what it limits, and what the record remembers of it.

use anyhow::{Context, Result};

use crate::cgroup::devices::Filter;
use crate::cgroup::limits::{self, Write};
use crate::cgroup::{self, Cgroup, Mount, path};
use crate::cli::CgroupManager;
use crate::container::CgroupPlace;
use crate::spec::{Linux, Resources};

pub struct Place {
    /// None: the container stays where its creator is.
    chosen: Option<(Mount, String)>,
    manager: CgroupManager,
    named: bool,
    writes: Vec<Write>,
    devices: Filter,
}

pub struct Request<'a> {
    pub linux: &'a Linux<'a>,
    pub id: &'a str,
    pub manager: CgroupManager,
}

impl Place {
    pub fn choose(request: &Request) -> Result<Self> {
        let nothing = Resources::default();
        let resources = request.linux.resources.as_ref().unwrap_or(&nothing);
        let asked = request.linux.cgroups_path.as_str();
        let chosen = match manager(request.manager) {
            path::Manager::Disabled => None,
            manager => {
                let mount = Mount::find()?;
                let path = mount.place(manager, asked, request.id).context("linux.cgroupsPath")?;
                path.map(|path| (mount, path))
            }
        };
        Ok(Self {
            writes: match chosen {
                Some(_) => limits::writes(resources, &limits::Facts::default()).context("linux.resources")?,
                None => Vec::new(),
            },
            devices: Filter::new(&resources.devices).context("linux.resources.devices")?,
            chosen,
            manager: request.manager,
            named: !asked.is_empty(),
        })
    }

    /// What the record says before anything is made, so that a create that is killed can be deleted.
    pub fn intended(&self) -> Option<CgroupPlace> {
        let (mount, path) = self.chosen.as_ref()?;
        Some(self.remembered(mount, path, vec![path.clone()]))
    }

    /// `announce` gets what the record has to say before more than the cgroup itself is made.
    pub fn make(
        &self,
        rootless: &dyn Fn() -> bool,
        announce: &dyn Fn(CgroupPlace) -> Result<()>,
    ) -> Result<Option<Cgroup>> {
        let Some((mount, path)) = &self.chosen else { return Ok(None) };
        let controllers = limits::controllers(&self.writes);
        let announce = &|made| announce(self.remembered(mount, path, made));
        let request =
            cgroup::Request { path, named: self.named, controllers: &controllers, rootless, announce };
        Cgroup::create(mount, &request)
    }

    pub fn made(&self, cgroup: &Cgroup) -> Option<CgroupPlace> {
        let (mount, path) = self.chosen.as_ref()?;
        Some(self.remembered(mount, path, cgroup.made().to_vec()))
    }

    fn remembered(&self, mount: &Mount, path: &str, made: Vec<String>) -> CgroupPlace {
        let manager = match self.manager {
            CgroupManager::Cgroupfs => "cgroupfs",
            CgroupManager::Systemd => "systemd",
            CgroupManager::Disabled => "disabled",
        };
        CgroupPlace {
            mount: mount.path().to_owned(),
            path: path.to_owned(),
            manager: manager.to_owned(),
            made,
        }
    }

    /// Sets the limits and the rules for devices.
    pub fn limit(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup::apply(cgroup, &self.writes)?;
        cgroup::attach(cgroup, &self.devices, super::is_confined).map(drop)
    }
}

fn manager(asked: CgroupManager) -> path::Manager {
    match asked {
        CgroupManager::Cgroupfs => path::Manager::Cgroupfs,
        CgroupManager::Systemd => path::Manager::Systemd,
        CgroupManager::Disabled => path::Manager::Disabled,
    }
}
