//! The cgroup of a new container: who makes it, where it goes, what it limits, and what the record remembers of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::cgroup::devices::Filter;
use crate::cgroup::limits::{self, Write};
use crate::cgroup::{self, Cgroup, Mount, unheeded};
use crate::cli::CgroupManager;
use crate::container::CgroupPlace;
use crate::log;
use crate::spec::{Resources, Spec};
use crate::systemd::{Keeper, Manager, Property, Unit, property};

pub struct Place {
    chosen: Option<Chosen>,
    named: bool,
    writes: Vec<Write>,
    devices: Filter,
}

/// Who makes the cgroup, and where. Without one the container stays where its creator is.
enum Chosen {
    InTree { mount: Mount, path: String },
    AsUnit { mount: Mount, manager: Manager, unit: Unit, properties: Vec<Property> },
}

pub struct Request<'a> {
    pub spec: &'a Spec<'a>,
    pub id: &'a str,
    pub manager: CgroupManager,
    /// Ends the name, where one config is that of many containers.
    pub copy: Option<u32>,
}

/// A cgroup that was made, and what keeps it until the container is in it.
pub struct Made {
    pub cgroup: Cgroup,
    pub keeper: Option<Keeper>,
}

impl Place {
    pub fn choose(request: &Request) -> Result<Self> {
        let linux = request.spec.linux.as_ref().context("config.json: linux is missing")?;
        let nothing = Resources::default();
        let resources = linux.resources.as_ref().unwrap_or(&nothing);
        let asked = match request.copy {
            Some(copy) if !linux.cgroups_path.as_str().is_empty() => {
                Cow::Owned(format!("{}-{copy}", linux.cgroups_path.as_str()))
            }
            _ => Cow::Borrowed(linux.cgroups_path.as_str()),
        };
        let asked = asked.as_ref();
        let devices = Filter::new(&resources.devices).context("linux.resources.devices")?;
        let named = !asked.is_empty();
        if request.manager == CgroupManager::Disabled {
            return Ok(Self { chosen: None, named, writes: Vec::new(), devices });
        }
        let writes = limits::writes(resources, &limits::Facts::default()).context("linux.resources")?;
        let mount = Mount::find()?;
        unheeded(&writes, mount.path()).into_iter().for_each(log::warning);
        let chosen = match request.manager {
            CgroupManager::Systemd => as_unit(request, asked, mount, &writes)?,
            _ => {
                let path = mount.place(asked, request.id).context("linux.cgroupsPath")?;
                Chosen::InTree { mount, path }
            }
        };
        Ok(Self { chosen: Some(chosen), named, writes, devices })
    }

    /// What the record says before anything is made, so that a create that is killed can be deleted.
    pub fn intended(&self) -> Option<CgroupPlace> {
        Some(match self.chosen.as_ref()? {
            Chosen::InTree { mount, path } => in_tree(mount, path, vec![path.clone()]),
            Chosen::AsUnit { mount, unit, .. } => as_remembered(mount, unit, String::new()),
        })
    }

    /// `announce` gets what the record has to say before more than the cgroup itself is made.
    pub fn make(
        &self,
        rootless: &dyn Fn() -> bool,
        announce: &dyn Fn(CgroupPlace) -> Result<()>,
    ) -> Result<Option<Made>> {
        match &self.chosen {
            None => Ok(None),
            Some(Chosen::InTree { mount, path }) => {
                let controllers = limits::controllers(&self.writes);
                let announce = &|made| announce(in_tree(mount, path, made));
                let request = cgroup::Request {
                    path,
                    named: self.named,
                    controllers: &controllers,
                    rootless,
                    announce,
                };
                Ok(Cgroup::create(mount, &request)?.map(|cgroup| Made { cgroup, keeper: None }))
            }
            Some(Chosen::AsUnit { mount, manager, unit, properties }) => {
                let keeper = manager.start(unit, properties)?;
                let cgroup = Cgroup::adopt(mount, &keeper.cgroup()?)?;
                Ok(Some(Made { cgroup, keeper: Some(keeper) }))
            }
        }
    }

    pub fn made(&self, cgroup: &Cgroup) -> Option<CgroupPlace> {
        Some(match self.chosen.as_ref()? {
            Chosen::InTree { mount, path } => in_tree(mount, path, cgroup.made().to_vec()),
            Chosen::AsUnit { mount, unit, .. } => as_remembered(mount, unit, cgroup.path().to_owned()),
        })
    }

    /// What follows from the config, for who asks for every step.
    pub fn announce(&self, cgroup: Option<&Cgroup>) {
        if !log::is_debug() {
            return;
        }
        let place = cgroup.map_or_else(|| "none of its own".to_owned(), Cgroup::full);
        log::debug(&format!("cgroup: {place}"));
        self.writes.iter().for_each(|write| log::debug(&format!("limit: {write}")));
    }

    /// Sets the limits and the rules for devices. systemd knows the limits by now, but rounds some of them.
    pub fn limit(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup::apply(cgroup, &self.writes)?;
        cgroup::attach(cgroup, &self.devices, super::is_confined).map(drop)
    }
}

fn as_unit(request: &Request, asked: &str, mount: Mount, writes: &[Write]) -> Result<Chosen> {
    let manager = super::systemd()?;
    let unit = Unit::resolve(asked, request.id, manager.default_slice()).context("linux.cgroupsPath")?;
    let annotations: BTreeMap<&str, &str> =
        request.spec.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let limits = property::limits(writes).context("linux.resources")?;
    let properties = property::merge(limits, property::annotated(&annotations)?);
    Ok(Chosen::AsUnit { mount, manager, unit, properties })
}

fn in_tree(mount: &Mount, path: &str, made: Vec<String>) -> CgroupPlace {
    CgroupPlace {
        mount: mount.path().to_owned(),
        path: path.to_owned(),
        manager: "cgroupfs".to_owned(),
        made,
        unit: String::new(),
    }
}

/// The path is empty until systemd has said it by what it did.
fn as_remembered(mount: &Mount, unit: &Unit, path: String) -> CgroupPlace {
    CgroupPlace {
        mount: mount.path().to_owned(),
        made: if path.is_empty() { Vec::new() } else { vec![path.clone()] },
        path,
        manager: "systemd".to_owned(),
        unit: unit.name.clone(),
    }
}
