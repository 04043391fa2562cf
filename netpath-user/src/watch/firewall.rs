//! The firewall's rules, looked at again and again: iptables of old tells nobody when they change.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::News;
use crate::firewall::{Ruleset, read::read};

/// Between two looks at few rules.
const INTERVAL: Duration = Duration::from_secs(2);
/// Where many rules make a look slow, this many times as long is waited: looking takes 2 % of a processor at most.
const REST: u32 = 50;

/// Tells the daemon whenever the rules differ from those that it knows, until it is gone.
pub async fn watch(mut known: Arc<Ruleset>, news: mpsc::Sender<News>) {
    let mut rest = INTERVAL;
    loop {
        tokio::select! {
            () = sleep(rest) => {}
            () = news.closed() => return,
        }
        let begun = Instant::now();
        let ruleset = read(&known).await;
        rest = INTERVAL.max(begun.elapsed() * REST);
        if ruleset != *known {
            known = Arc::new(ruleset);
            if news.send(News::Firewall(Arc::clone(&known))).await.is_err() {
                return;
            }
        }
    }
}
