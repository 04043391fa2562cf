//! The command line, as clap reads it.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use netpath_common::abi::Mode;

use super::{
    ct::{EventsArgs, FilterArgs},
    endpoint::EndpointListArgs,
    inspect::InspectArgs,
    migrate::MigrateArgs,
    net::NetListArgs,
    output::Format,
    ports::PortsArgs,
};
use crate::{
    control::DEFAULT_SOCKET,
    dataplane::{TcChoice, XdpChoice},
    settings::{DEFAULT_PATH, PortRange},
};

/// Where maps and links are pinned when nobody says otherwise.
const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/netpath";
/// Flows when nobody says otherwise: as many as the kernel's connection tracking holds on a machine of 8 GB.
const DEFAULT_FLOWS: u32 = 262_144;
/// Below, a single busy client fills the table; above, it takes 4 GB of kernel memory and more.
const FLOWS_MAX: RangeInclusive<i64> = 1024..=16_777_216;

/// Where the help puts what every verb takes.
const HEADING: &str = "Global options";

const EXAMPLES: &str = "\
Examples:
  netpath run                                  carry the traffic of this host's containers
  netpath run --uplink eth0 --xdp native
  netpath status                               is it attached, and in step with Docker?
  netpath ct ls -o json | jq '.[] | select(.state == \"ESTABLISHED\")'
  netpath ct rm --dst 198.51.100.7             end connections; `ct flush` ends all
  netpath ct events --count 10                 connections as they begin and end
  netpath policy apply                         read the policy of the configuration file again
  netpath endpoint ls --filter network=bridge  containers' addresses and the host side of their veths
  netpath migrate --check                      what would moving over change?
  netpath detach                               give everything back to Docker

Exit codes:
  0  done; for status: attached and in step with Docker
  1  failure
  2  wrong usage
  3  no daemon answers, or nothing is attached
  4  a permission or capability is missing
  5  the kernel lacks something
  6  attached, but not in step with Docker; for migrate: something stands in the way

DOCKER_HOST (unix://PATH) names Docker's socket, RUST_LOG the level of the daemon's log.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "netpath",
    version,
    about = "Carries the traffic of Docker containers with eBPF instead of iptables",
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(super) struct CommandLine {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What every verb takes, before or after its name.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The daemon's control socket
    #[arg(long, global = true, help_heading = HEADING, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// Where maps and links are pinned, on a BPF file system
    #[arg(long, global = true, help_heading = HEADING, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pub(super) pin_dir: PathBuf,
    /// The shape of what is printed
    #[arg(short, long, global = true, help_heading = HEADING, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(super) output: Format,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Attach to this host and follow Docker until told to stop
    ///
    /// What is attached stays when the daemon ends, in whatever way: traffic goes on, and the next `netpath run` adopts
    /// it. `netpath detach` removes it.
    Run(RunArgs),
    /// Remove every program, link and map of netpath
    ///
    /// Stops a running daemon first. Works without one. Docker's own rules, where it has any, carry on.
    Detach,
    /// Show whether netpath is attached and in step with Docker
    Status,
    /// Show, follow and remove tracked connections
    #[command(subcommand)]
    Ct(CtVerb),
    /// Show published ports
    Ports(PortsArgs),
    /// Show networks
    #[command(subcommand)]
    Net(NetVerb),
    /// Show, check and change who may open connections to published ports
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Show containers' addresses and interfaces
    #[command(subcommand)]
    Endpoint(EndpointVerb),
    /// Show dropped packets by reason
    Drops,
    /// Move this host from Docker's rules to netpath and back
    Migrate(MigrateArgs),
}

/// `netpath ct`.
#[derive(Debug, Subcommand)]
pub(super) enum CtVerb {
    /// List connections
    ///
    /// `-o wide` adds the answers' tuple, what was seen of each direction and where it leaves; `-o conntrack` prints the
    /// lines of `conntrack -L`.
    Ls(FilterArgs),
    /// Count connections
    Count,
    /// Remove the connections that all the options given select
    ///
    /// The next packet of a removed connection opens a new one, if it may.
    Rm(FilterArgs),
    /// Remove all connections
    Flush,
    /// Show how many connections there are of each protocol and state, and what became of the others
    Stats,
    /// Print connections as they begin and end, in the manner of `conntrack -E`
    ///
    /// Until Ctrl-C, `--count` or `--timeout`. One can listen at a time.
    Events(EventsArgs),
}

/// `netpath net`.
#[derive(Debug, Subcommand)]
pub(super) enum NetVerb {
    /// List the networks that netpath manages
    Ls(NetListArgs),
    /// Show all that is known of networks, with their containers and published ports
    Inspect(InspectArgs),
}

/// `netpath endpoint`.
#[derive(Debug, Subcommand)]
pub(super) enum EndpointVerb {
    /// List containers' addresses, with the host side of their veths
    Ls(EndpointListArgs),
}

/// `netpath policy`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Show the rules in their order, and how often each fitted
    Show,
    /// Say what is wrong with the policy of a configuration file, without putting it in force
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Put the policy of the daemon's configuration file, or of another one, in force
    ///
    /// At once and as a whole. Connections that it denies end. The policy of another file stands until the daemon is
    /// started anew.
    Apply {
        /// Another file
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Leave connections open that the policy denies
        #[arg(long)]
        keep_flows: bool,
    },
}

/// `netpath run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// An interface that leads to the world; may be repeated [default: those of the default routes; in sole mode every
    /// Ethernet interface with an address]
    #[arg(long = "uplink", value_name = "IF")]
    pub(super) uplinks: Vec<String>,
    /// Where the XDP program runs on uplinks
    #[arg(long, value_enum, value_name = "MODE", default_value_t = XdpChoice::Auto)]
    pub(super) xdp: XdpChoice,
    /// How netpath shares the host with dockerd's iptables rules
    #[arg(long, value_enum, default_value_t = ModeChoice::Auto)]
    pub(super) mode: ModeChoice,
    /// Take networks over although rules in DOCKER-USER and the like lose their effect on them
    #[arg(long)]
    pub(super) ignore_user_rules: bool,
    /// How the tc programs are attached
    #[arg(long, value_enum, value_name = "HOW", default_value_t = TcChoice::Auto)]
    pub(super) tc: TcChoice,
    /// How many flows the table holds
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS, value_parser = value_parser!(u32).range(FLOWS_MAX))]
    pub(super) flows_max: u32,
    /// Ports for flows whose own source port is taken [default: 1024-65535]
    #[arg(long, value_name = "A-B")]
    pub(super) port_range: Option<PortRange>,
    /// The configuration file [default: /etc/netpath/netpath.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The shape of the log on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeChoice {
    /// As dockerd is configured
    Auto,
    /// dockerd keeps its rules; what netpath doesn't carry, they do
    Takeover,
    /// dockerd runs without iptables and proxy; what netpath doesn't carry is dropped
    Sole,
}

impl ModeChoice {
    /// The mode, unless Docker is to be asked.
    pub(super) const fn forced(self) -> Option<Mode> {
        match self {
            Self::Auto => None,
            Self::Takeover => Some(Mode::Takeover),
            Self::Sole => Some(Mode::Sole),
        }
    }
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// A line per event
    Text,
    /// A JSON object per line
    Json,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

    use super::{CommandLine, CtVerb, Format, LogFormat, ModeChoice, RunArgs, Verb};
    use crate::{
        dataplane::{TcChoice, XdpChoice},
        settings::PortRange,
    };

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    fn run(line: &str) -> RunArgs {
        match parse(line).unwrap().verb {
            Verb::Run(args) => args,
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_and_after_the_verb() {
        for line in [
            "netpath --socket /s --pin-dir /p -o json ct ls",
            "netpath ct --socket /s --pin-dir /p ls -o json",
            "netpath ct ls --socket=/s --pin-dir=/p --output=json",
            "netpath --socket /s ct ls --pin-dir /p -ojson",
        ] {
            let CommandLine { global, verb } = parse(line).unwrap();
            assert!(matches!(verb, Verb::Ct(CtVerb::Ls(_))));
            assert_eq!((global.socket.as_path(), global.pin_dir.as_path()), (Path::new("/s"), Path::new("/p")));
            assert_eq!(global.output, Format::Json);
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let CommandLine { global, .. } = parse("netpath status").unwrap();
        assert_eq!(global.socket, Path::new("/run/netpath/netpath.sock"));
        assert_eq!(global.pin_dir, Path::new("/sys/fs/bpf/netpath"));
        assert_eq!(global.output, Format::Table);
        let args = run("netpath run");
        assert_eq!((args.xdp, args.mode, args.tc), (XdpChoice::Auto, ModeChoice::Auto, TcChoice::Auto));
        assert_eq!((args.flows_max, args.port_range, args.log_format), (262_144, None, LogFormat::Text));
        assert!(args.uplinks.is_empty());
    }

    #[test]
    fn run_takes_what_it_says() {
        let args = run("netpath run --uplink eth0 --uplink eth1 --xdp generic --mode sole --tc clsact \
             --flows-max 2048 --port-range 40000-40099 --log-format json");
        assert_eq!(args.uplinks, ["eth0", "eth1"]);
        assert_eq!((args.xdp, args.mode, args.tc), (XdpChoice::Generic, ModeChoice::Sole, TcChoice::Clsact));
        assert_eq!((args.flows_max, args.port_range), (2048, Some(PortRange { first: 40000, last: 40099 })));
        assert_eq!(args.log_format, LogFormat::Json);
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "netpath frobnicate",
            "netpath status extra",
            "netpath run --flows-max 0",
            "netpath run --flows-max many",
            "netpath run --port-range 10-9",
            "netpath run --xdp fast",
            "netpath status -o yaml",
            "netpath ct",
            "netpath ct ls --proto tpc",
            "netpath ct ls --src 10.0.0.0/33",
            "netpath ct ls --dport 65536",
            "netpath ct ls --state OPEN",
            "netpath ct ls --network=",
            "netpath policy",
            "netpath policy check one two",
            "netpath policy show --keep-flows",
            "netpath ct events --count 0",
            "netpath ct events --timeout never",
            "netpath net ls --filter label=x",
            "netpath net ls --filter name",
            "netpath net inspect",
            "netpath endpoint ls --filter address=nowhere",
            "netpath ports --filter publish=x",
            "netpath migrate",
            "netpath migrate --check --to sole",
            "netpath migrate --check --dry-run",
            "netpath migrate --to iptables",
            "netpath",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("netpath help").unwrap_err().exit_code(), 0);
        assert_eq!(parse("netpath --version").unwrap_err().kind(), ErrorKind::DisplayVersion);
    }
}
