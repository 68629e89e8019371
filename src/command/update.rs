//! `update`: other limits for a living container. What is not named stays as it is.
//!
//! Devices are left alone, whatever --resources says of them: engines send the whole of linux.resources, and
//! add rules of their own behind the runtime's back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cgroup::limits::{Facts, Write, cpu_weight, writes};
use crate::cgroup::{Cgroup, replace, unheeded};
use crate::cli::{self, Bytes};
use crate::container::{Action, Container, Lock, require};
use crate::fair::model::Terms;
use crate::spec::{BlockIo, Cpu, Memory, Pids, Resources, Str};
use crate::systemd::property;
use crate::{log, rdt, trial};

/// No engine sends more; what is longer is not resources.
const LARGEST_INPUT: u64 = 16 << 20;

pub fn run(global: &cli::Global, arguments: &cli::Update) -> Result<()> {
    let store = super::store(global)?;
    let container = store.load(&arguments.id)?;
    let input = arguments.resources.as_deref().map(read).transpose()?;
    let resources = match &input {
        Some(bytes) => serde_json::from_slice(bytes).context("read the resources to update")?,
        None => asked(arguments)?,
    };
    let lock = container.lock()?;
    // Only now nobody else changes the record.
    let mut container = store.load(&arguments.id)?;
    require(Action::Update, container.id(), super::status(&container)?)?;
    trial::point("change the class of service")?;
    class_of_service(&container, arguments)?;
    let cgroup = super::cgroup_to("update", &container)?;
    let facts = Facts::read(&cgroup, &resources)?;
    let writes = writes(&resources, &facts)?;
    unheeded(&writes, mount(&container)).into_iter().for_each(log::warning);
    trial::point("set limits")?;
    replace(&cgroup, &writes)?;
    trial::point("tell systemd")?;
    tell_systemd(&container, &cgroup, &writes)?;
    match resources.cpu.as_ref().filter(|cpu| **cpu != Cpu::default()) {
        Some(cpu) => {
            trial::point("write the record")?;
            remember(&mut container, cpu, &lock)
        }
        None => Ok(()),
    }
}

fn mount(container: &Container) -> &str {
    container.record.cgroup.as_ref().map_or("", |place| place.mount.as_str())
}

/// A `fair run` goes by what the record says, and looks again when it is replaced.
fn remember(container: &mut Container, cpu: &Cpu, lock: &Lock) -> Result<()> {
    if let Some((shares, weight)) = cpu.shares.and_then(|shares| Some((shares, cpu_weight(shares)?))) {
        let sharing = container.record.fair.get_or_insert_default();
        sharing.said.insert("shares".to_owned(), Terms::from_cpu_shares(shares).to_string());
        sharing.weight = u16::try_from(weight).ok();
    }
    container.rewrite(lock)
}

/// Otherwise it would set the old limits again when it next reads its units.
fn tell_systemd(container: &Container, cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let unit = container.record.cgroup.as_ref().map_or("", |place| place.unit.as_str());
    if unit.is_empty() {
        return Ok(());
    }
    let now = |write: &Write| match write.file.as_ref() {
        // A quota without its period leaves the period that is there, which systemd has to hear, too.
        "cpu.max" => Write::new("cpu.max", cgroup.value("cpu.max").unwrap_or_else(|| write.value.clone())),
        _ => write.clone(),
    };
    let properties = property::limits(&writes.iter().map(now).collect::<Vec<_>>())?;
    super::systemd()?.change(unit, &property::merge(properties, Vec::new()))
}

fn class_of_service(container: &Container, arguments: &cli::Update) -> Result<()> {
    let schema = |value: &Option<String>| value.clone().unwrap_or_default();
    let (cache, bandwidth) =
        (schema(&arguments.limits.l3_cache_schema), schema(&arguments.limits.mem_bw_schema));
    if cache.is_empty() && bandwidth.is_empty() {
        return Ok(());
    }
    let Some(place) = &container.record.rdt else {
        bail!("--l3-cache-schema, --mem-bw-schema: the container was made without linux.intelRdt");
    };
    rdt::update(&place.group, &cache, &bandwidth)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(LARGEST_INPUT).read_to_end(&mut bytes).context("read standard input")?;
    } else {
        File::open(path)
            .and_then(|file| file.take(LARGEST_INPUT).read_to_end(&mut bytes))
            .with_context(|| format!("read {path:?}"))?;
    }
    Ok(bytes)
}

/// The flags as resources.
fn asked(arguments: &cli::Update) -> Result<Resources<'_>> {
    let bytes = |size: Option<Bytes>| size.map(|Bytes(bytes)| bytes);
    Ok(Resources {
        cpu: Some(Cpu {
            shares: arguments.limits.cpu_share,
            quota: arguments.limits.cpu_quota,
            burst: arguments.limits.cpu_burst,
            period: arguments.limits.cpu_period,
            realtime_runtime: arguments.limits.cpu_rt_runtime,
            realtime_period: arguments.limits.cpu_rt_period,
            cpus: text("--cpuset-cpus", &arguments.limits.cpuset_cpus)?,
            mems: text("--cpuset-mems", &arguments.limits.cpuset_mems)?,
            idle: arguments.limits.cpu_idle,
        }),
        memory: Some(Memory {
            limit: bytes(arguments.limits.memory),
            reservation: bytes(arguments.limits.memory_reservation),
            swap: bytes(arguments.limits.memory_swap),
            ..Memory::default()
        }),
        pids: Some(Pids { limit: arguments.limits.pids_limit }),
        block_io: Some(BlockIo { weight: arguments.limits.blkio_weight, ..BlockIo::default() }),
        ..Resources::default()
    })
}

fn text<'a>(flag: &str, value: &'a Option<String>) -> Result<Option<Str<'a>>> {
    let Some(value) = value else { return Ok(None) };
    Str::new(value.as_str()).map(Some).with_context(|| format!("{flag}: a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Verb, parse};

    fn written(flags: &str) -> String {
        let line = format!("deja update {flags} web");
        let invocation = parse(line.split(' ').filter(|word| !word.is_empty()).map(Into::into)).unwrap();
        let Verb::Update(arguments) = invocation.verb else { panic!("{line}") };
        match asked(&arguments).and_then(|resources| writes(&resources, &Facts::default())) {
            Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn only_what_was_given_is_changed() {
        let table = [
            ("", ""),
            ("--memory 50M", r#"memory.max = "52428800""#),
            ("--memory -1", r#"memory.swap.max = "max"; memory.max = "max""#),
            ("--memory 1G --memory-swap 1G", r#"memory.swap.max = "0"; memory.max = "1073741824""#),
            ("--memory-swap -1", r#"memory.swap.max = "max""#),
            ("--memory-reservation 1k", r#"memory.low = "1024""#),
            ("--kernel-memory 1G --kernel-memory-tcp 1G", ""),
            ("--cpu-quota -1", r#"cpu.max = "max""#),
            ("--cpu-quota 5000 --cpu-period 10000", r#"cpu.max = "5000 10000""#),
            ("--cpu-burst 0", r#"cpu.max.burst = "0""#),
            ("--cpu-share 100", r#"cpu.weight = "17""#),
            ("--cpu-idle 1", r#"cpu.idle = "1""#),
            ("--cpuset-cpus 0-1 --cpuset-mems 0", r#"cpuset.cpus = "0-1"; cpuset.mems = "0""#),
            ("--pids-limit 0", r#"pids.max = "1""#),
            ("--pids-limit -1", r#"pids.max = "max""#),
            ("--blkio-weight 100", r#"io.bfq.weight = "100""#),
            ("--cpu-rt-runtime 10", "refused: cpu.realtimeRuntime does not exist in cgroup v2"),
            // These go to another place.
            ("--l3-cache-schema L3:0=f --mem-bw-schema MB:0=20", ""),
        ];
        for (flags, expected) in table {
            assert_eq!(written(flags), expected, "{flags}");
        }
    }
}
