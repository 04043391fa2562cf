//! What an operator may set on a host, for the time of a sample.

use anyhow::{Context as _, Result};

use crate::netns::Place;

/// A host with something set; dropping it puts that back.
#[derive(Debug)]
pub struct Tuned<'site> {
    host: &'site Place,
    back: String,
}

impl<'site> Tuned<'site> {
    /// Keeps a connection's packets in order on their way out of a container.
    ///
    /// What comes out of a veth waits on the CPU that sent it. A TCP connection sends on two: its process writes on one, and the
    /// answers, which let it send more, come in on another. So its packets overtake each other, the receiver reports a loss
    /// that was none, and the sender slows down: the more often, the sooner the path is through with a packet. With receive
    /// packet steering (`rps_cpus`, Documentation/networking/scaling.rst) all of them wait on one CPU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn in_order(host: &'site Place, cpu: usize) -> Result<Self> {
        let steer = |mask: u64| {
            format!("for queue in /sys/class/net/veth*/queues/rx-*; do echo {mask:x} > $queue/rps_cpus; done")
        };
        Self::by(host, &steer(1 << cpu), steer(0)).context("steer what containers send")
    }

    /// Threaded NAPI on the uplink: what has come in is worked on by a kernel thread, which the scheduler puts on a CPU that is
    /// free, instead of on the CPU that the interrupt came to (Documentation/networking/napi.rst).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn threaded(host: &'site Place) -> Result<Self> {
        let switch = |on: u8| format!("echo {on} > /sys/class/net/eth0/threaded");
        Self::by(host, &switch(1), switch(0)).context("make the uplink's NAPI threaded")
    }

    fn by(host: &'site Place, set: &str, back: String) -> Result<Self> {
        run(host, set)?;
        Ok(Self { host, back })
    }
}

impl Drop for Tuned<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(self.host, &self.back) {
            eprintln!("the host stays as it was set for a sample: {error:#}");
        }
    }
}

/// Writes to the interfaces of the host's namespace, which are only in a sysfs that was mounted within it.
fn run(host: &Place, script: &str) -> Result<()> {
    let script = format!("set -e; mount -t sysfs sysfs /sys; {script}");
    host.run(&["unshare", "--mount", "sh", "-c", &script])?;
    Ok(())
}
