//! Whose programs are in charge: this version's, or still those that another one has left.
//!
//! A version with maps of another shape can't read what is pinned. Until its own maps are filled, the programs of the one before
//! carry everything; then these make way, one link at a time. With maps of the same shape there is nothing to wait for. See
//! docs/maps.md, "Another version".

use netpath_common::abi::Config;

use super::{host_access, kernel::Kernel};
use crate::report::HostAccessStatus;

impl Kernel {
    /// Puts this version's programs in charge, unless its maps must be filled first.
    ///
    /// # Errors
    ///
    /// When pins can't be read, or links or pins of before can't be replaced.
    pub(super) fn succeed(&mut self) -> anyhow::Result<()> {
        // Once flows were opened, the maps have been filled: only the last steps of an earlier start are missing.
        if self.layout.has_other_schemas()? && self.is_fresh() {
            self.succeeds = true;
            tracing::warn!(
                "another version of netpath has left its programs; they go on carrying packets until Docker has said what there is"
            );
            return Ok(());
        }
        self.put_programs()
    }

    /// Puts this version's programs into every link, and removes what no program uses then.
    fn put_programs(&mut self) -> anyhow::Result<()> {
        self.links.adopt(&mut self.ebpf)?;
        let left = self.layout.remove_other_schemas()?;
        if left > 0 {
            tracing::warn!(pins = left, "removed what another version of netpath had left; its flows begin anew");
        }
        Ok(())
    }

    /// Whether netpath doesn't open flows yet: nothing of this version was pinned before, a detach was broken off, or another
    /// version's programs couldn't all be replaced.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.succeeds || self.pins.config().map_or(true, |config| config.opens_flows == 0)
    }

    /// Leads the host's own sockets to published ports from here on, or adopts what is attached. That it can't be had is
    /// in [`Self::host_access`] and in the log; everything else works without it.
    ///
    /// After another version it waits for [`Self::begin_opening_flows`], like all programs.
    pub fn attach_host_access(&mut self) {
        if self.succeeds {
            return;
        }
        let error = host_access::attach(&self.layout, &mut self.ebpf).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            tracing::warn!(error, "the host's own connections to published ports stay with the kernel");
        }
        self.host_access = HostAccessStatus { attached: error.is_none(), error };
    }

    /// Whether the host's own sockets are led to published ports, and if not, why.
    #[must_use]
    pub const fn host_access(&self) -> &HostAccessStatus {
        &self.host_access
    }

    /// From here on netpath opens flows. Another version's programs, which have carried everything until now, make way.
    ///
    /// # Errors
    ///
    /// When the configuration can't be written, or what another version has left can't be replaced.
    pub fn begin_opening_flows(&mut self) -> anyhow::Result<()> {
        let config = self.pins.config()?;
        self.write_config(Config { opens_flows: 1, ..config })?;
        if self.succeeds {
            let put = self.put_programs();
            self.succeeds = put.is_err();
            // The host's sockets lead to flows that the programs at the interfaces must know.
            self.attach_host_access();
            self.state.attachments = self.links.attachments().collect();
            put?;
        }
        Ok(())
    }
}
