//! The firewall's rules, read again when nftables says that they have changed. iptables of old tells nobody: where its tables
//! are in use they are looked at again and again.

use std::{future::pending, sync::Arc, time::Duration};

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{News, notifications::Notifications};
use crate::firewall::{
    Ruleset,
    read::{read, tells_of_changes},
};

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const NFTABLES: u32 = 7;
/// A change of many rules comes as one burst.
const SETTLE: Duration = Duration::from_millis(20);
/// Between two looks at few rules, however often they change.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks at rules whose changes are told: tools may come and go, which changes what can be seen.
const INTERVAL_TOLD: Duration = Duration::from_secs(60);
/// Where many rules make a look slow, this many times as long is waited: looking takes 2 % of a processor at most.
const REST: u32 = 50;

/// Tells the daemon whenever the rules differ from those that it knows, until it is gone.
pub struct Watcher {
    known: Arc<Ruleset>,
    changes: Option<Notifications>,
}

impl Watcher {
    /// Subscribes to changes. The rules must be read after that.
    #[must_use]
    pub fn subscribe() -> Self {
        let changes = Notifications::subscribe(NETLINK_NETFILTER, &[NFTABLES], |_| true);
        let told = |error: anyhow::Error| {
            warn!(error = format!("{error:#}"), "nftables tells of no changes; its rules are read every two seconds");
        };
        Self { known: Arc::default(), changes: changes.map_err(told).ok() }
    }

    /// Watches; `known` are the rules that the daemon knows.
    pub async fn run(mut self, known: Arc<Ruleset>, news: mpsc::Sender<News>) {
        self.known = known;
        let mut rest = INTERVAL;
        loop {
            tokio::select! {
                () = self.next(rest) => {}
                () = news.closed() => return,
            }
            let begun = Instant::now();
            let ruleset = read(&self.known).await;
            rest = INTERVAL.max(begun.elapsed() * REST);
            if ruleset != *self.known {
                self.known = Arc::new(ruleset);
                if news.send(News::Firewall(Arc::clone(&self.known))).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for a reason to read the rules, and at least for `rest`.
    async fn next(&self, rest: Duration) {
        sleep(rest).await;
        let begun = Instant::now();
        while self.changes.is_some() && tells_of_changes() && begun.elapsed() < INTERVAL_TOLD {
            tokio::select! {
                () = self.changed() => return,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    async fn changed(&self) {
        let Some(changes) = &self.changes else { return pending().await };
        if let Err(error) = changes.next(SETTLE).await {
            warn!(%error, "waiting for changes of the firewall's rules failed; they are read anyway");
        }
    }
}
