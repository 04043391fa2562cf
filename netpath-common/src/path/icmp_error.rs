//! ICMP errors about a flow, in either direction: they follow the flow that they quote.

use super::HOST_IFINDEX;
use crate::{
    abi::{FlowKind, Mode, PathCount},
    drop::DropReason,
    forward::{self, Fate, Verdict},
    nat::{apply, icmp_error as nat},
    packet::Packet,
    parse::{Fragment, Headers},
    tables::{Arrival, Tables},
    wire::checksum::Checksum,
};

/// Translates an ICMP error with the flow that it quotes and sends it the flow's way. Undecided: it quotes no flow.
///
/// The error itself doesn't keep the flow alive (RFC 5508, section 4.2).
#[inline(never)]
pub(super) fn icmp_error<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
) -> Fate {
    Fate::from(try_icmp_error(packet, tables, headers, arrival))
}

#[inline(always)]
fn try_icmp_error<T: Tables>(
    packet: &mut impl Packet,
    tables: &mut T,
    headers: &Headers,
    arrival: &Arrival,
) -> Result<Option<Verdict>, DropReason> {
    if headers.fragment != Fragment::Whole {
        return Ok(None);
    }
    let Some(quote) = nat::quote(packet, headers) else { return Ok(None) };
    let Some(entry) = tables.flow(&quote.reversed) else {
        let config = tables.config();
        let is_kernels = config.mode() == Mode::Takeover
            && (config.opens_flows == 0 || tables.is_handed_over(&quote.reversed, arrival.now_ns));
        return Ok(is_kernels.then_some(Verdict::kernel(PathCount::Handover)));
    };
    let flow = tables.load(entry);
    let Some(hop) = tables.hop(flow.hop) else { return Ok(None) };
    if hop.generation != flow.hop_generation || (flow.ingress_ifindex != 0 && flow.ingress_ifindex != arrival.ifindex) {
        return Ok(None);
    }
    if arrival.ifindex == HOST_IFINDEX && flow.kind() != FlowKind::Host {
        return Ok(None);
    }
    if headers.ttl <= 1 && flow.kind() != FlowKind::Host {
        return Err(DropReason::TtlExpired);
    }
    nat::apply(packet, headers, &quote, &flow)?;
    if flow.kind() == FlowKind::Host {
        return Ok(Some(Verdict::kernel(PathCount::IcmpError)));
    }

    // Whoever sent the error hides behind the translated source; a router's address between stays what it is.
    let key = &headers.key;
    let source = if flow.source == quote.reversed.source { key.source } else { flow.source };
    let destination = if flow.destination == quote.reversed.destination { key.destination } else { flow.destination };
    let delta =
        Checksum::NONE.replace_u32(key.source, source).plus(Checksum::NONE.replace_u32(key.destination, destination));
    apply::rewrite(packet, headers, source, destination, delta)?;
    let forward = forward::along(packet, &flow, &hop)?;
    Ok(Some(Verdict { forward, path: PathCount::IcmpError }))
}
