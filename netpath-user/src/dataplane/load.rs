//! Loads the eBPF object over new or pinned maps, and refuses pinned maps of another shape.

use anyhow::{Context as _, bail};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapInfo, MapType},
};
use netpath_common::abi::{
    Address, Admitted, AdmittedKey, Asked, AskedKey, ClosedPorts, Cone, ConeKey, ConeOwner, Config, Endpoint,
    FlowBucket, FlowKey, FlowRegion, FlowTable, FragmentKey, FragmentPorts, Handover, Hop, Ipv6Address, Policy, Port,
    PublishedBlock, PublishedKey, Sender, Traffic, Uplink,
    names::{map, variable},
};

use super::{flows, layout::Layout};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netpath-ebpf"));

/// The eBPF programs, an ELF object: for tools that look at it.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// How many hops there are: endpoints and uplinks.
pub(super) const HOPS_MAX: u32 = 65_536;
/// How many endpoints there may be; few less than hops.
const ENDPOINTS_MAX: u32 = 65_000;
/// How many things interfaces may let in: every endpoint's veth, and as many addresses of containers on several networks.
const ADMITTED_MAX: u32 = 2 * ENDPOINTS_MAX;
/// How many blocks of published ports there may be: every port of TCP and UDP by itself, and as many again on single
/// addresses.
const PUBLISHED_MAX: u32 = 4 * 65_536;

/// The shape of a map: what must be the same for a pinned one to be adopted.
struct Shape {
    name: &'static str,
    map_type: MapType,
    key_size: usize,
    value_size: usize,
}

const SHAPES: [Shape; 29] = [
    shape::<u32, FlowTable>(map::FLOW_TABLE, MapType::Array),
    shape::<u32, FlowBucket>(map::FLOW_BUCKETS, MapType::Array),
    shape::<u32, FlowRegion>(map::FLOW_TAGS, MapType::Array),
    // A lock has a line of the CPU's cache for itself.
    shape::<u32, [u8; 64]>(map::FLOW_LOCKS, MapType::Array),
    shape::<Address, Endpoint>(map::ENDPOINTS, MapType::Hash),
    shape::<AdmittedKey, Admitted>(map::ADMITTED, MapType::Hash),
    shape::<u32, Hop>(map::HOPS, MapType::Array),
    shape::<PublishedKey, PublishedBlock>(map::PUBLISHED, MapType::LpmTrie),
    shape::<u32, Uplink>(map::UPLINKS, MapType::Hash),
    shape::<Address, u32>(map::HOST_ADDRESSES, MapType::Hash),
    shape::<Ipv6Address, u32>(map::HOST_ADDR_IPV6, MapType::Hash),
    shape::<FlowKey, Handover>(map::HANDOVER, MapType::Hash),
    shape::<u32, u64>(map::HANDOVER_FILTER, MapType::Array),
    shape::<FragmentKey, FragmentPorts>(map::FRAGMENTS, MapType::LruHash),
    shape::<u32, Config>(map::CONFIG, MapType::Array),
    shape::<u32, u32>(map::TIMEOUTS, MapType::Array),
    shape::<u32, u64>(map::RESERVED_PORTS, MapType::Array),
    shape::<AskedKey, Asked>(map::ASKED, MapType::LruHash),
    shape::<u32, u64>(map::DROPS, MapType::PerCpuArray),
    shape::<u32, Traffic>(map::TRAFFIC, MapType::PerCpuArray),
    shape::<ConeKey, Cone>(map::CONES, MapType::Hash),
    shape::<ConeOwner, Port>(map::CONE_PORTS, MapType::Hash),
    shape::<u32, ClosedPorts>(map::CLOSED_PORTS, MapType::Array),
    shape::<u32, Sender>(map::SENDERS, MapType::Array),
    // A ring buffer has neither keys nor values.
    shape::<(), ()>(map::EVENTS, MapType::RingBuf),
    shape::<u32, u64>(map::LISTENER, MapType::Array),
    shape::<u32, Policy>(map::POLICIES, MapType::Array),
    shape::<u32, u32>(map::POLICY_IN_FORCE, MapType::Array),
    shape::<u32, Traffic>(map::POLICY_HITS, MapType::PerCpuArray),
];

const _: () = assert!(SHAPES.len() == map::ALL.len(), "every map has a shape");

const fn shape<K, V>(name: &'static str, map_type: MapType) -> Shape {
    Shape { name, map_type, key_size: size_of::<K>(), value_size: size_of::<V>() }
}

/// Loads the object; its maps are the pinned ones where there are any. `netns_cookie` is the kernel's number for the
/// network namespace that it works for.
///
/// # Errors
///
/// When a pinned map has another shape, or the kernel refuses the object.
pub(super) fn load(layout: &Layout, flows_max: u32, netns_cookie: u64) -> anyhow::Result<(Ebpf, flows::Shape)> {
    let wanted = flows_max.checked_mul(2).context("the number of flows is too large")?;
    for shape in &SHAPES {
        compare(layout, shape)?;
    }
    let adopted = flows::Shape::adopt(layout)?;
    let table = adopted.unwrap_or_else(|| flows::Shape::new(wanted));
    let mut loader = EbpfLoader::new();
    for name in map::ALL {
        loader.map_pin_path(name, layout.map(name));
    }
    let mut ebpf = loader
        .override_global(variable::HOST_NETNS_COOKIE, &netns_cookie, true)
        .override_global(variable::FLOW_SEED, &table.seed, true)
        .override_global(variable::FLOW_ENTRIES_MAX, &table.entries_max, true)
        .override_global(variable::FLOW_REGIONS, &table.regions, true)
        .map_max_entries(map::FLOW_BUCKETS, table.buckets())
        .map_max_entries(map::FLOW_TAGS, table.regions)
        .map_max_entries(map::FLOW_LOCKS, table.regions)
        .map_max_entries(map::HANDOVER, table.entries_max)
        .map_max_entries(map::ENDPOINTS, ENDPOINTS_MAX)
        .map_max_entries(map::ADMITTED, ADMITTED_MAX)
        .map_max_entries(map::HOPS, HOPS_MAX)
        .map_max_entries(map::PUBLISHED, PUBLISHED_MAX)
        .load(OBJECT)
        .context("the kernel refused the eBPF object")?;
    if adopted.is_none() {
        begin_table(&mut ebpf, &table)?;
    }
    if table.entries_max != wanted {
        tracing::warn!(
            flows = table.entries_max / 2,
            wanted = wanted / 2,
            "the adopted flow table keeps its size; it changes after `netpath detach`"
        );
    }
    Ok((ebpf, table))
}

/// aya takes a pinned map whatever its shape; a program would then read past its values.
fn compare(layout: &Layout, shape: &Shape) -> anyhow::Result<()> {
    let path = layout.map(shape.name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).with_context(|| format!("can't open the pinned map {}", path.display()))?;
    let same = info.map_type().is_ok_and(|map_type| map_type == shape.map_type)
        && info.key_size() as usize == shape.key_size
        && info.value_size() as usize == shape.value_size;
    if !same {
        bail!(
            "the pinned map {} has another layout than this netpath's; `netpath detach --pin-dir {}` removes it",
            path.display(),
            layout.root().display()
        );
    }
    Ok(())
}

/// Says of a new flow table what the programs have as constants, for whoever comes after this daemon. No program runs yet: the next
/// start takes a table of which nothing is said for one that nobody has used.
fn begin_table(ebpf: &mut Ebpf, shape: &flows::Shape) -> anyhow::Result<()> {
    let map = ebpf.map_mut(map::FLOW_TABLE).with_context(|| format!("the eBPF object lacks {}", map::FLOW_TABLE))?;
    let mut table: Array<_, FlowTable> = map.try_into().context("the map of the flow table has another type")?;
    table.set(0, shape.empty(), 0).context("can't write what is to be known of the flow table")
}
