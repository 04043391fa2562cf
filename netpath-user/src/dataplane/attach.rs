//! Attaches programs to interfaces, adopts what is attached, detaches.
//!
//! A link is pinned as soon as it is made; from then on the pin keeps it alive, not the daemon. Adopting swaps the
//! program of a pinned link in place (`BPF_LINK_UPDATE`): no packet sees a moment without one.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
        xdp::XdpLink,
    },
    util::KernelVersion,
};
use netpath_common::abi::names::program;

use super::{
    AttachmentReport, TcChoice, XdpChoice, bpf, interface,
    layout::{Layout, LinkPin, Mechanism},
};
use crate::{
    desired::model::{Attachment, Hook},
    ethtool,
};

/// Place of our clsact filters among others: early, and ours to recognise.
const FILTER_PRIORITY: u16 = 10;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0x6e70);

/// Attached programs.
pub(super) struct Links {
    layout: Layout,
    xdp: XdpChoice,
    tc: Mechanism,
    pins: Vec<LinkPin>,
    /// Pins of mechanisms that an earlier start wanted, and those that lead nowhere; they stay until [`Self::adopt`].
    unwanted: Vec<LinkPin>,
}

impl Links {
    /// What is pinned, whichever programs it holds. [`Self::adopt`] must follow.
    pub(super) fn find(layout: Layout, xdp: XdpChoice, tc: TcChoice) -> anyhow::Result<Self> {
        let tc = match tc {
            TcChoice::Tcx => Mechanism::Tcx,
            TcChoice::Auto if kernel_has_tcx() => Mechanism::Tcx,
            TcChoice::Auto | TcChoice::Clsact => Mechanism::Clsact,
        };
        let mut links = Self { xdp, tc, pins: Vec::new(), unwanted: Vec::new(), layout };
        let found = links.layout.link_pins()?;
        (links.pins, links.unwanted) = found.into_iter().partition(|pin| links.wants(pin.mechanism));
        Ok(links)
    }

    /// Whether each attachment waits for a grace period of the usual length.
    pub(super) fn wait_for_grace_periods(&self) -> bool {
        self.tc == Mechanism::Tcx
    }

    fn wants(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Tcx | Mechanism::Clsact => mechanism == self.tc,
            Mechanism::XdpNative => matches!(self.xdp, XdpChoice::Auto | XdpChoice::Native),
            Mechanism::XdpGeneric => self.xdp == XdpChoice::Generic,
        }
    }

    /// Puts this object's programs into every link that is pinned, and removes pins of interfaces that are gone and of
    /// mechanisms that aren't wanted. The programs must be loaded.
    ///
    /// # Errors
    ///
    /// The last one, when pins can't be removed. They are known still, as are all others, so that it can be tried again.
    pub(super) fn adopt(&mut self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        for pin in std::mem::take(&mut self.pins) {
            match swap(ebpf, &pin) {
                Ok(()) => self.pins.push(pin),
                Err(error) => {
                    tracing::debug!(pin = %pin.path.display(), %error, "a pinned link leads nowhere; removing it");
                    self.unwanted.push(pin);
                }
            }
        }
        self.remove_unwanted()
    }

    /// Goes on behind a pin that can't be removed.
    fn remove_unwanted(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        self.unwanted.retain(|pin| match remove(pin) {
            Ok(()) => false,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }

    /// Where programs are attached.
    pub(super) fn attachments(&self) -> impl Iterator<Item = Attachment> + '_ {
        self.pins.iter().map(|pin| pin.attachment)
    }

    pub(super) fn reports(&self) -> Vec<AttachmentReport> {
        self.pins.iter().map(LinkPin::report).collect()
    }

    /// Attaches a program. That XDP isn't wanted or, in `auto`, not to be had, is no error: nothing is attached then.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, attachment: Attachment) -> anyhow::Result<()> {
        if self.pins.iter().any(|pin| pin.attachment == attachment) {
            return Ok(());
        }
        let name =
            interface::name(attachment.ifindex).with_context(|| format!("interface {} is gone", attachment.ifindex))?;
        let pin = match attachment.hook {
            Hook::XdpUplink => self.attach_xdp(ebpf, attachment, &name)?,
            Hook::Uplink | Hook::Egress | Hook::Container | Hook::Bridge | Hook::Loopback => {
                Some(self.attach_tc(ebpf, attachment, &name)?)
            }
        };
        self.pins.extend(pin);
        Ok(())
    }

    /// Detaches a program; its interface may be gone.
    pub(super) fn detach(&mut self, attachment: Attachment) -> anyhow::Result<()> {
        for pin in self.pins.extract_if(.., |pin| pin.attachment == attachment) {
            remove(&pin)?;
        }
        Ok(())
    }

    fn attach_tc(&self, ebpf: &mut Ebpf, attachment: Attachment, name: &str) -> anyhow::Result<LinkPin> {
        let pin = self.layout.link(attachment, self.tc);
        let (program_name, direction) = tc_program(attachment.hook)?;
        let program = classifier(ebpf, program_name)?;
        let what = || format!("can't attach {program_name} to {name}");
        if self.tc == Mechanism::Clsact {
            add_clsact(name)?;
            let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
            let id =
                program.attach_with_options(name, direction, TcAttachOptions::Netlink(options)).with_context(what)?;
            // Dropping the link would take the filter away.
            std::mem::forget(program.take_link(id).with_context(what)?);
            pin_program(program, &pin)?;
            return Ok(pin);
        }
        let id = program
            .attach_with_options(name, direction, TcAttachOptions::TcxOrder(LinkOrder::first()))
            .with_context(what)?;
        let link: FdLink = program.take_link(id).with_context(what)?.try_into().with_context(what)?;
        link.pin(&pin.path).with_context(|| format!("can't pin {}", pin.path.display()))?;
        Ok(pin)
    }

    fn attach_xdp(&self, ebpf: &mut Ebpf, attachment: Attachment, name: &str) -> anyhow::Result<Option<LinkPin>> {
        let (mechanism, mode) = match self.xdp {
            XdpChoice::Generic => (Mechanism::XdpGeneric, XdpMode::Skb),
            XdpChoice::Native => (Mechanism::XdpNative, XdpMode::Driver),
            XdpChoice::Auto if suits_native_xdp(name) => (Mechanism::XdpNative, XdpMode::Driver),
            XdpChoice::Auto | XdpChoice::Off => return Ok(None),
        };
        let pin = self.layout.link(attachment, mechanism);
        let what = || {
            format!("can't attach {} to {name} in {} mode", xdp_name(mechanism), pin.report().xdp_mode.unwrap_or(""))
        };
        let program = xdp_program(ebpf, xdp_name(mechanism))?;
        let id = match program.attach_to_if_index(attachment.ifindex, mode) {
            Ok(id) => id,
            Err(error) if self.xdp == XdpChoice::Auto => {
                tracing::info!(interface = name, error = %chain(&error), "no native XDP here; going on with tc alone");
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(what),
        };
        let link: FdLink = program.take_link(id).with_context(what)?.try_into().with_context(what)?;
        link.pin(&pin.path).with_context(|| format!("can't pin {}", pin.path.display()))?;
        Ok(Some(pin))
    }
}

/// tcx came with kernel 6.6.
fn kernel_has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Native XDP on one end of a veth pair switches segmentation offload off on the other: worse than none.
fn suits_native_xdp(name: &str) -> bool {
    const VIRTUAL: [&str; 7] = ["veth", "bridge", "802.1Q VLAN Support", "macvlan", "tun", "vxlan", "dummy"];
    match ethtool::driver(name) {
        Ok(driver) => !VIRTUAL.contains(&driver.as_str()),
        Err(_) => false,
    }
}

/// Puts this object's program into a pinned link.
fn swap(ebpf: &mut Ebpf, pin: &LinkPin) -> anyhow::Result<()> {
    match pin.mechanism {
        Mechanism::Clsact => {
            let name = interface::name(pin.attachment.ifindex)?;
            let (program_name, direction) = tc_program(pin.attachment.hook)?;
            let program = classifier(ebpf, program_name)?;
            let link = SchedClassifierLink::attached(&name, direction, FILTER_PRIORITY, FILTER_HANDLE, None)?;
            let id = program.attach_to_link(link)?;
            std::mem::forget(program.take_link(id)?);
            fs::remove_file(&pin.path)?;
            pin_program(program, pin)
        }
        Mechanism::Tcx => {
            let (program_name, _) = tc_program(pin.attachment.hook)?;
            let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(&pin.path)?).try_into()?;
            let program = classifier(ebpf, program_name)?;
            let id = program.attach_to_link(link)?;
            drop(program.take_link(id)?);
            Ok(())
        }
        Mechanism::XdpNative | Mechanism::XdpGeneric => {
            let link: XdpLink = FdLink::from(PinnedLink::from_pin(&pin.path)?).try_into()?;
            let program = xdp_program(ebpf, xdp_name(pin.mechanism))?;
            let id = program.attach_to_link(link)?;
            drop(program.take_link(id)?);
            Ok(())
        }
    }
}

/// Removes a pin and with it what it keeps attached. An interface that is gone took its filters with it.
pub(super) fn remove(pin: &LinkPin) -> anyhow::Result<()> {
    if pin.mechanism == Mechanism::Clsact
        && let Err(error) = remove_filter(pin.attachment)
    {
        tracing::debug!(ifindex = pin.attachment.ifindex, error = %format!("{error:#}"), "the filter is gone already");
    }
    if pin.mechanism == Mechanism::Clsact { remove_pin(&pin.path) } else { remove_link(&pin.path) }.map(drop)
}

/// Detaches a pinned link and removes the pin. Gives whether there was one.
pub(super) fn remove_link(pin: &Path) -> anyhow::Result<bool> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    if let Err(error) = bpf::detach_link(&path) {
        tracing::debug!(pin = %pin.display(), %error, "the link leads nowhere already");
    }
    remove_pin(pin)
}

/// Removes a pin. Gives whether there was one.
fn remove_pin(pin: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(pin) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("can't remove the pin {}", pin.display())),
    }
}

fn remove_filter(attachment: Attachment) -> anyhow::Result<()> {
    let name = interface::name(attachment.ifindex)?;
    let (_, direction) = tc_program(attachment.hook)?;
    let link = SchedClassifierLink::attached(&name, direction, FILTER_PRIORITY, FILTER_HANDLE, None)?;
    Ok(aya::programs::Link::detach(link)?)
}

fn add_clsact(name: &str) -> anyhow::Result<()> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) | Err(tc::TcError::AlreadyAttached) => Ok(()),
        Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't add a clsact qdisc to {name}")),
    }
}

/// The marker of a clsact attachment. aya remembers one pin per program, so the program is opened again for each.
fn pin_program(program: &SchedClassifier, pin: &LinkPin) -> anyhow::Result<()> {
    let path = CString::new(pin.path.as_os_str().as_bytes())?;
    bpf::pin_object(program.fd()?.as_fd(), &path).with_context(|| format!("can't pin {}", pin.path.display()))
}

fn tc_program(hook: Hook) -> anyhow::Result<(&'static str, TcAttachType)> {
    match hook {
        Hook::Uplink => Ok((program::UPLINK, TcAttachType::Ingress)),
        Hook::Egress => Ok((program::EGRESS, TcAttachType::Egress)),
        Hook::Container => Ok((program::CONTAINER, TcAttachType::Ingress)),
        Hook::Bridge => Ok((program::BRIDGE, TcAttachType::Egress)),
        Hook::Loopback => Ok((program::LOOPBACK, TcAttachType::Egress)),
        Hook::XdpUplink => bail!("an XDP hook takes no tc program"),
    }
}

pub(super) fn classifier<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut SchedClassifier> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("the eBPF object lacks the program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no tc program"))
}

/// Which of the two XDP programs a mechanism takes.
const fn xdp_name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::XdpGeneric => program::XDP_GENERIC,
        Mechanism::Tcx | Mechanism::Clsact | Mechanism::XdpNative => program::XDP_UPLINK,
    }
}

pub(super) fn xdp_program<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut Xdp> {
    let program = ebpf.program_mut(name).ok_or_else(|| anyhow!("the eBPF object lacks the program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no XDP program"))
}

/// An error with its causes on one line.
fn chain(error: &ProgramError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_that_cant_be_removed_is_tried_again_and_those_behind_it_go() {
        let directory = tempfile::tempdir().unwrap();
        let pin = |ifindex| LinkPin {
            attachment: Attachment { ifindex, hook: Hook::Uplink },
            mechanism: Mechanism::Tcx,
            path: directory.path().join(ifindex.to_string()),
        };
        let unwanted = vec![pin(1), pin(2), pin(3)];
        fs::create_dir(&unwanted[0].path).unwrap();
        fs::write(&unwanted[1].path, "").unwrap();
        let layout = Layout::new(directory.path());
        let mut links = Links { layout, xdp: XdpChoice::Off, tc: Mechanism::Tcx, pins: Vec::new(), unwanted };
        assert!(links.remove_unwanted().is_err());
        assert!(!directory.path().join("2").exists());
        assert_eq!(links.unwanted.iter().map(|pin| pin.attachment.ifindex).collect::<Vec<_>>(), [1]);
        fs::remove_dir(&links.unwanted[0].path).unwrap();
        links.remove_unwanted().unwrap();
        assert!(links.unwanted.is_empty());
    }
}
