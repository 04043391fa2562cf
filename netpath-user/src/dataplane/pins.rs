//! A read-only view of what is pinned: what the command line shows, with or without a daemon.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    pin::PinError,
};
use bytemuck::Zeroable;
use netpath_common::{
    abi::{
        Address, Config, Endpoint, Flow, FlowKey, Hop, PathCount, PublishedBlock, PublishedKey, Traffic, Uplink,
        names::map,
    },
    conntrack::PairState,
    drop::DropReason,
};

use super::{
    AttachmentReport,
    bpf::{self, Cursor},
    convert,
    flows::Table,
    host_access, interface,
    layout::Layout,
};
use crate::desired::ports::{PortBlock, PublishedTarget};

/// Entries that one call reads from a map.
const SLICE: usize = 4096;

/// Why pins can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Nothing is pinned there.
    #[error("nothing is attached under {}", .0.display())]
    Absent(PathBuf),
    /// The caller may not read them.
    #[error("no permission to read the maps under {}; run it as root", .0.display())]
    Permission(PathBuf),
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The pinned maps.
pub struct Pins {
    layout: Layout,
    pub(super) table: Table,
    config: Array<MapData, Config>,
    endpoints: MapData,
    hops: Array<MapData, Hop>,
    published: MapData,
    uplinks: HashMap<MapData, u32, Uplink>,
    timeouts: Array<MapData, u32>,
    drops: PerCpuArray<MapData, u64>,
    traffic: PerCpuArray<MapData, Traffic>,
}

impl Pins {
    /// Opens the maps that are pinned below a directory.
    ///
    /// # Errors
    ///
    /// See [`PinsError`].
    pub fn open(pin_dir: &Path) -> Result<Self, PinsError> {
        let layout = Layout::new(pin_dir);
        Ok(Self {
            table: Table::open(&layout)?,
            config: typed(&layout, map::CONFIG, Map::Array)?,
            endpoints: open(&layout, map::ENDPOINTS)?,
            hops: typed(&layout, map::HOPS, Map::Array)?,
            published: open(&layout, map::PUBLISHED)?,
            uplinks: typed(&layout, map::UPLINKS, Map::HashMap)?,
            timeouts: typed(&layout, map::TIMEOUTS, Map::Array)?,
            drops: typed(&layout, map::DROPS, Map::PerCpuArray)?,
            traffic: typed(&layout, map::TRAFFIC, Map::PerCpuArray)?,
            layout,
        })
    }

    /// The configuration that the programs run with.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn config(&self) -> anyhow::Result<Config> {
        self.config.get(&0, 0).context("can't read the configuration map")
    }

    /// How long a pair may be silent, in seconds, by state.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn timeouts(&self) -> anyhow::Result<BTreeMap<PairState, u32>> {
        let read = |state: PairState| {
            let seconds = self.timeouts.get(&(state as u32), 0).context("can't read the map of timeouts")?;
            Ok((state, if seconds == 0 { state.default_timeout_s() } else { seconds }))
        };
        PairState::ALL.iter().map(|state| read(*state)).collect()
    }

    /// How many flows the table holds.
    #[must_use]
    pub const fn flows_capacity(&self) -> u32 {
        self.table.entries_max() / 2
    }

    /// How many flows there are.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn flows_used(&self) -> anyhow::Result<u64> {
        Ok(self.table.entries()?.div_ceil(2))
    }

    /// Bytes of kernel memory that the flow table takes, as the kernel counts them; `None` where it doesn't say.
    ///
    /// # Errors
    ///
    /// When the kernel's account can't be read.
    pub fn flows_memory(&self) -> anyhow::Result<Option<u64>> {
        self.table.memory()
    }

    /// Every entry of the flow table, two for each flow.
    ///
    /// # Errors
    ///
    /// When the maps can't be read.
    pub fn flows(&self) -> anyhow::Result<Vec<(FlowKey, Flow)>> {
        let mut flows = Vec::new();
        self.table.walk(|key, flow| flows.push((key, flow)))?;
        Ok(flows)
    }

    /// Endpoints by address.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn endpoints(&self) -> anyhow::Result<Vec<(Ipv4Addr, Endpoint)>> {
        let mut endpoints = Vec::new();
        walk(&self.endpoints, map::ENDPOINTS, |address: Address, endpoint| endpoints.push((address.into(), endpoint)))?;
        endpoints.sort_by_key(|(address, _)| *address);
        Ok(endpoints)
    }

    /// A hop.
    ///
    /// # Errors
    ///
    /// When there is no such index or the map can't be read.
    pub fn hops(&self, index: u32) -> anyhow::Result<Hop> {
        self.hops.get(&index, 0).with_context(|| format!("can't read hop {index}"))
    }

    /// The interface that a hop leads out of; `None` when it is gone.
    #[must_use]
    pub fn hop_interface(&self, index: u32) -> Option<String> {
        interface::name(self.hops(index).ok()?.ifindex).ok()
    }

    /// Blocks of published ports, and where their first ones lead.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn published(&self) -> anyhow::Result<BTreeMap<PortBlock, PublishedTarget>> {
        let mut blocks = BTreeMap::new();
        // A walk through a trie begins anew when an entry is removed where it stands: what is seen twice counts once.
        walk::<PublishedKey, PublishedBlock>(&self.published, map::PUBLISHED, |key, value| {
            blocks.extend(convert::read_published(&key, &value));
        })?;
        Ok(blocks)
    }

    /// Uplinks by interface.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn uplinks(&self) -> anyhow::Result<Vec<(u32, Uplink)>> {
        self.uplinks.iter().collect::<Result<_, _>>().context("can't read the map of uplinks")
    }

    /// Dropped packets by reason, every reason, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn drops(&self) -> anyhow::Result<Vec<(DropReason, u64)>> {
        let count = |reason: DropReason| {
            let values = self.drops.get(&(reason as u32), 0).context("can't read the map of drops")?;
            Ok((reason, values.iter().sum()))
        };
        DropReason::ALL.iter().map(|reason| count(*reason)).collect()
    }

    /// Packets and bytes by way, every way, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the map can't be read.
    pub fn traffic(&self) -> anyhow::Result<Vec<(PathCount, Traffic)>> {
        let count = |path: PathCount| {
            let values = self.traffic.get(&(path as u32), 0).context("can't read the map of traffic")?;
            let sum = values.iter().fold(Traffic::zeroed(), |sum, value| Traffic {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            });
            Ok((path, sum))
        };
        PathCount::ALL.iter().map(|path| count(*path)).collect()
    }

    /// Whether the host's own sockets are led to published ports.
    #[must_use]
    pub fn host_access(&self) -> bool {
        host_access::is_attached(&self.layout)
    }

    /// What is attached, by the names of the pins; an interface may be gone.
    ///
    /// # Errors
    ///
    /// When the directory can't be read.
    pub fn attachments(&self) -> anyhow::Result<Vec<AttachmentReport>> {
        Ok(self.layout.link_pins()?.iter().map(super::layout::LinkPin::report).collect())
    }
}

/// Calls `each` with every entry of a hash map or a trie.
pub(super) fn walk<K: Pod + Zeroable, V: Pod + Zeroable>(
    map: &MapData,
    name: &str,
    mut each: impl FnMut(K, V),
) -> anyhow::Result<()> {
    let mut cursor = Some(Cursor::default());
    while let Some(position) = cursor {
        let (entries, next) =
            bpf::lookup(map, position, SLICE).with_context(|| format!("can't read the map {name}"))?;
        entries.into_iter().for_each(|(key, value)| each(key, value));
        cursor = next;
    }
    Ok(())
}

pub(super) fn open(layout: &Layout, name: &str) -> Result<MapData, PinsError> {
    let path = layout.map(name);
    MapData::from_pin(&path).map_err(|error| match (io_kind(&error), layout.root()) {
        (Some(io::ErrorKind::NotFound), root) => PinsError::Absent(root.to_owned()),
        (Some(io::ErrorKind::PermissionDenied), root) => PinsError::Permission(root.to_owned()),
        (_, _) => PinsError::Other(anyhow::Error::new(error).context(format!("can't open {}", path.display()))),
    })
}

pub(super) fn typed<T>(layout: &Layout, name: &str, kind: fn(MapData) -> Map) -> Result<T, PinsError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = kind(open(layout, name)?);
    let map = T::try_from(map).with_context(|| format!("the pinned map {name} has another layout"))?;
    Ok(map)
}

/// Whether an aya error says that there is no such pin.
pub(super) fn is_absent(error: &(dyn std::error::Error + 'static)) -> bool {
    io_kind(error) == Some(io::ErrorKind::NotFound)
}

/// The kernel's own reason inside an aya error.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        if let Some(PinError::SyscallError(error)) = error.downcast_ref() {
            return Some(error.io_error.kind());
        }
        cause = error.source();
    }
    None
}
