//! Where the fields of a header stand, and what their bits mean. Layout only, no decisions.
//!
//! Offsets are counted from the start of the header that a module is about; the packet path adds where that header
//! begins.

pub mod checksum;

/// Ethernet (IEEE 802.3).
pub mod ethernet {
    /// Destination address, 6 bytes.
    pub const DESTINATION: usize = 0;
    /// Source address, 6 bytes.
    pub const SOURCE: usize = 6;
    /// EtherType, 2 bytes.
    pub const ETHER_TYPE: usize = 12;
    /// Bytes of the header.
    pub const LEN: usize = 14;
    /// EtherType of IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// EtherType of IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// The bit of the first byte that tells group addresses from those of one station.
    pub const GROUP: u8 = 1;
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    /// Version (high nibble) and header length in words of four bytes (low nibble).
    pub const VERSION_IHL: usize = 0;
    /// Type of service.
    pub const TOS: usize = 1;
    /// Total length, header included.
    pub const TOTAL_LEN: usize = 2;
    /// Identification.
    pub const IDENTIFICATION: usize = 4;
    /// Flags (three bits) and fragment offset in units of eight bytes.
    pub const FRAGMENT: usize = 6;
    /// Time to live.
    pub const TTL: usize = 8;
    /// Protocol.
    pub const PROTOCOL: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: usize = 10;
    /// Source address.
    pub const SOURCE: usize = 12;
    /// Destination address.
    pub const DESTINATION: usize = 16;
    /// Bytes of the header without options.
    pub const LEN: usize = 20;
    /// Bytes that a datagram can have behind its header, however it was fragmented.
    pub const DATAGRAM_MAX: u32 = 65_535 - LEN as u32;
    /// In [`FRAGMENT`], host order: don't fragment.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// In [`FRAGMENT`], host order: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// In [`FRAGMENT`], host order: the offset.
    pub const OFFSET: u16 = 0x1fff;
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    /// Bytes of the header without extensions.
    pub const LEN: usize = 40;
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// TCP (RFC 9293).
pub mod tcp {
    /// Source port.
    pub const SOURCE_PORT: usize = 0;
    /// Destination port.
    pub const DESTINATION_PORT: usize = 2;
    /// Sequence number.
    pub const SEQUENCE: usize = 4;
    /// Acknowledgement number.
    pub const ACKNOWLEDGEMENT: usize = 8;
    /// Header length in words of four bytes (high nibble).
    pub const DATA_OFFSET: usize = 12;
    /// Flags.
    pub const FLAGS: usize = 13;
    /// Checksum.
    pub const CHECKSUM: usize = 16;
    /// Bytes of the header without options.
    pub const LEN: usize = 20;
    /// Flag FIN.
    pub const FIN: u8 = 1;
    /// Flag SYN.
    pub const SYN: u8 = 2;
    /// Flag RST.
    pub const RST: u8 = 4;
    /// Flag ACK.
    pub const ACK: u8 = 16;
}

/// UDP (RFC 768).
pub mod udp {
    /// Source port.
    pub const SOURCE_PORT: usize = 0;
    /// Destination port.
    pub const DESTINATION_PORT: usize = 2;
    /// Length, header included.
    pub const LENGTH: usize = 4;
    /// Checksum; zero: none.
    pub const CHECKSUM: usize = 6;
    /// Bytes of the header.
    pub const LEN: usize = 8;
}

/// SCTP (RFC 9260).
pub mod sctp {
    /// Bytes of the common header: ports, verification tag, checksum.
    pub const LEN: usize = 12;
}

/// ICMP (RFC 792).
pub mod icmp {
    /// Type.
    pub const TYPE: usize = 0;
    /// Checksum.
    pub const CHECKSUM: usize = 2;
    /// Identifier of an echo message.
    pub const IDENTIFIER: usize = 4;
    /// Bytes of the header; an error quotes the packet behind it.
    pub const LEN: usize = 8;
    /// Bytes of the quoted packet's transport header that an error holds at least.
    pub const QUOTE_MIN: usize = 8;
    /// Code of "fragmentation needed" (RFC 792).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Code of [`UNREACHABLE`]: communication administratively prohibited (RFC 1812, section 5.2.7.1).
    pub const PROHIBITED: u8 = 13;
    /// Type: echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Type: source quench (deprecated, RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Type: timestamp.
    pub const TIMESTAMP: u8 = 13;
    /// Type: information request (deprecated, RFC 6918).
    pub const INFORMATION: u8 = 15;
    /// Type: address mask request (RFC 950).
    pub const ADDRESS_MASK: u8 = 17;
    /// Type: echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Type: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Type: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}
