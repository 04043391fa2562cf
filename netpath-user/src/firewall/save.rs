//! Rules as `iptables-save` prints them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Backend, Chain, Hook, Match, Rule, Table, is_dockers_chain};
use crate::subnet::Subnet;

/// The tables in a print of `iptables-save`. Docker's own rules in its chains are left out, however many there are.
pub(super) fn parse(backend: Backend, text: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table { backend, name: name.to_owned(), ..Table::new(backend) });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (Some(name), policy) = (words.next(), words.next()) else { continue };
            let drops_by_default = policy == Some("DROP");
            table.chains.insert(name.to_owned(), Chain { hook: hook(name), drops_by_default, rules: Vec::new() });
        } else if let Some((chain, rule)) = rule(line) {
            if is_dockers_chain(&chain) && rule.action == Action::Change {
                table.leads_to.insert(target(&rule.text).unwrap_or(Subnet::ALL));
            }
            if (!is_dockers_chain(&chain) || is_foreign(&rule))
                && let Some(chain) = table.chains.get_mut(&chain)
            {
                chain.rules.push(rule);
            }
        }
    }
    tables
}

impl Table {
    const fn new(backend: Backend) -> Self {
        Self { backend, name: String::new(), chains: BTreeMap::new(), leads_to: BTreeSet::new() }
    }
}

/// The one address that a rule `-j DNAT` leads to, as Docker writes it.
fn target(text: &str) -> Option<Subnet> {
    let (_, to) = text.split_once(" -j DNAT --to-destination ")?;
    let address = to.split([':', ' ']).next()?;
    address.parse().ok()
}

/// Whether somebody put a rule into a chain of Docker's: Docker keeps nobody out by where they come from.
fn is_foreign(rule: &Rule) -> bool {
    rule.action == Action::Restrict && rule.conditions.source.as_ref().is_some_and(|source| !source.negated)
}

/// A built-in chain's place. Packets to the host aren't containers'.
fn hook(chain: &str) -> Option<Hook> {
    match chain {
        "PREROUTING" => Some(Hook::Prerouting),
        "FORWARD" => Some(Hook::Forward),
        "POSTROUTING" => Some(Hook::Postrouting),
        "OUTPUT" => Some(Hook::Output),
        _ => None,
    }
}

/// The chain and the rule of a line `-A CHAIN ...`.
fn rule(line: &str) -> Option<(String, Rule)> {
    let text = &line[line.find("-A ")?..];
    let words = words(text);
    let mut words = words.iter().map(String::as_str).skip(1);
    let chain = words.next()?.to_owned();
    let mut rule = Rule { text: text.to_owned(), ..Rule::default() };
    let mut negated = false;
    while let Some(word) = words.next() {
        let conditions = &mut rule.conditions;
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-i" | "--in-interface" => conditions.from = words.next().map(|name| interface(name, negated)),
            "-o" | "--out-interface" => conditions.to = words.next().map(|name| interface(name, negated)),
            "-s" | "--source" => address(&mut conditions.source, &mut conditions.others, words.next(), negated),
            "-d" | "--destination" => {
                address(&mut conditions.destination, &mut conditions.others, words.next(), negated);
            }
            // The name of a module is no condition by itself, and a comment is none at all.
            "-m" | "--match" | "--comment" => drop(words.next()),
            "-j" | "--jump" => {
                rule.action = action(words.next()?);
                break;
            }
            "-g" | "--goto" => {
                rule.action = Action::Goto(vec![words.next()?.to_owned()]);
                break;
            }
            _ => conditions.others = true,
        }
        negated = false;
    }
    Some((chain, rule))
}

fn interface(name: &str, negated: bool) -> Match<String> {
    Match { values: vec![name.to_owned()], negated }
}

fn address(to: &mut Option<Match<Subnet>>, others: &mut bool, text: Option<&str>, negated: bool) {
    match text.map(str::parse) {
        Some(Ok(subnet)) => *to = Some(Match { values: vec![subnet], negated }),
        Some(Err(_)) | None => *others = true,
    }
}

/// What a target does. Names that aren't a target's are chains.
fn action(target: &str) -> Action {
    match target {
        "ACCEPT" => Action::Accept,
        "RETURN" => Action::Return,
        "DROP" | "REJECT" | "QUEUE" | "NFQUEUE" | "TARPIT" | "STEAL" | "DELUDE" | "CHAOS" => Action::Restrict,
        "MASQUERADE" => Action::Masquerade,
        // CHECKSUM is for sums that hardware was to fill in; netpath's are whole.
        "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "SET" | "RATEEST" | "LED" | "IDLETIMER" | "ACCOUNT" | "CT"
        | "NOTRACK" | "CHECKSUM" | "SYSRQ" => Action::Count,
        "MARK" | "CONNMARK" | "SECMARK" | "CONNSECMARK" | "CLASSIFY" | "DSCP" | "TOS" | "ECN" | "TTL" | "HL"
        | "TCPMSS" | "TCPOPTSTRIP" | "TEE" | "TPROXY" | "DNAT" | "SNAT" | "REDIRECT" | "NETMAP" | "SAME"
        | "CLUSTERIP" | "SYNPROXY" | "HMARK" | "FLOWOFFLOAD" => Action::Change,
        chain => Action::Jump(vec![chain.to_owned()]),
    }
}

/// The words of a rule; what is in quotes is one.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (quoted, begun) = (!quoted, true),
            '\\' if quoted => word.extend(letters.next()),
            ' ' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            letter => {
                word.push(letter);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{Action, Backend, Hook, Match, parse, words};
    use crate::firewall::Conditions;

    const SAVED: &str = r#"# Generated by iptables-nft-save v1.8.9 on Mon Jan  1 00:00:00 2024
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [12:720]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
[3:180] -A FORWARD -j DOCKER-USER
-A FORWARD ! -i eth0 -o br+ -m comment --comment "by \"me\" -j DROP" -j ACCEPT
-A DOCKER -s 192.0.2.66/32 -j DROP
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-USER ! -s 10.0.0.0/8 -d 172.17.0.0/16 -p tcp -j REJECT --reject-with tcp-reset
-A DOCKER-USER -m set --match-set bad src -g mine
-A DOCKER-USER -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
"#;

    #[test]
    fn what_iptables_save_prints_is_understood() {
        let tables = parse(Backend::IptablesNft, SAVED);
        let names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["filter", "nat"]);
        let chains = &tables[0].chains;
        let of_docker: Vec<_> = chains["DOCKER"].rules.iter().map(|rule| rule.text.as_str()).collect();
        assert_eq!(of_docker, ["-A DOCKER -s 192.0.2.66/32 -j DROP"]);
        let forward = &chains["FORWARD"];
        assert_eq!((forward.hook, forward.drops_by_default), (Some(Hook::Forward), true));
        assert_eq!(forward.rules[0].action, Action::Jump(vec!["DOCKER-USER".to_owned()]));
        assert!(forward.rules[0].conditions.are_none());
        assert_eq!(forward.rules[0].text, "-A FORWARD -j DOCKER-USER");
        let only = |value: &str, negated| Some(Match { values: vec![value.to_owned()], negated });
        let interfaces = Conditions { from: only("eth0", true), to: only("br+", false), ..Conditions::default() };
        assert_eq!((&forward.rules[1].conditions, &forward.rules[1].action), (&interfaces, &Action::Accept));
        let user = &chains["DOCKER-USER"];
        assert_eq!(user.hook, None);
        let [reject, set, end] = user.rules.as_slice() else { panic!("three rules") };
        let subnet = |text: &str, negated| Some(Match { values: vec![text.parse().unwrap()], negated });
        assert_eq!(reject.conditions.source, subnet("10.0.0.0/8", true));
        assert_eq!(reject.conditions.destination, subnet("172.17.0.0/16", false));
        assert!(reject.conditions.others);
        assert_eq!(reject.action, Action::Restrict);
        assert_eq!((set.conditions.others, &set.action), (true, &Action::Goto(vec!["mine".to_owned()])));
        assert!(end.conditions.are_none());
        assert_eq!(end.action, Action::Return);
        assert_eq!(tables[1].chains["POSTROUTING"].rules[0].action, Action::Masquerade);
    }

    #[test]
    fn a_rule_without_a_target_counts() {
        let tables = parse(Backend::IptablesLegacy, "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 192.0.2.7\n");
        assert_eq!(tables[0].chains["PREROUTING"].rules[0].action, Action::Count);
    }

    #[test]
    fn words_in_quotes_are_one() {
        assert_eq!(words(r#"a  "b \"c\" d" "" e"#), ["a", r#"b "c" d"#, "", "e"]);
    }

    #[test]
    fn what_is_no_table_is_nothing() {
        assert!(parse(Backend::IptablesNft, "").is_empty());
        assert!(
            parse(Backend::IptablesNft, "# Warning: iptables-legacy tables present\n-A FORWARD -j DROP").is_empty()
        );
    }
}
