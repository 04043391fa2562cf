//! Keeping a connection's packets in order on their way out of a container.
//!
//! What comes out of a veth waits on the CPU that sent it. A TCP connection sends on two: its process writes on one, and the
//! answers, which let it send more, come in on another. So its packets overtake each other, the receiver reports a loss that
//! was none, and the sender slows down: the more often, the sooner the path is through with a packet. With receive packet
//! steering (`rps_cpus`, Documentation/networking/scaling.rst) all of them wait on one CPU.

use anyhow::{Context as _, Result};

use crate::netns::Place;

/// As long as this lives, what containers send waits on one CPU.
#[derive(Debug)]
pub struct InOrder<'site>(&'site Place);

impl<'site> InOrder<'site> {
    /// For the containers of this host, on that CPU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn on(host: &'site Place, cpu: usize) -> Result<Self> {
        steer(host, 1 << cpu)?;
        Ok(Self(host))
    }
}

impl Drop for InOrder<'_> {
    fn drop(&mut self) {
        if let Err(error) = steer(self.0, 0) {
            eprintln!("the containers' packets stay steered: {error:#}");
        }
    }
}

/// Lets the host's sides of containers' veths hand packets to the CPUs of the mask; none is each its own.
fn steer(host: &Place, mask: u64) -> Result<()> {
    // The namespace's interfaces are only in a sysfs that was mounted within it.
    let script = format!(
        "set -e; mount -t sysfs sysfs /sys; \
         for queue in /sys/class/net/veth*/queues/rx-*; do echo {mask:x} > $queue/rps_cpus; done"
    );
    host.run(&["unshare", "--mount", "sh", "-c", &script]).context("steer what containers send")?;
    Ok(())
}
