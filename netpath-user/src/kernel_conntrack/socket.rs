//! A netlink socket to nfnetlink: one request answered with a list, or many requests answered one by one.
//!
//! The kernel handles what is sent before the call returns, so the answers to a batch are in the receive buffer when
//! the batch has been sent. Knows nothing of connections.

use std::io;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::message::Request;

/// The kernel sends at most 32 KiB of a list at once (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;

/// Requests sent at once. An answer takes about 0.8 KiB of the receive buffer, however short it is: if all requests
/// fail, about 100 KiB of the 208 KiB that is Linux's default.
const BATCH: usize = 128;

/// Messages start at multiples of this (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

type Message = NetlinkMessage<NetfilterMessage>;

/// What became of one request.
pub(super) type Outcome = Result<(), Errno>;

/// A connected socket of the calling thread's network namespace.
pub(super) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // An answer then repeats the request's header and not the whole of it.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0, outgoing: Vec::new(), incoming: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends a request for a list and hands over each entry as it comes.
    pub(super) fn dump(&mut self, request: &Request, mut entry: impl FnMut(&ConntrackMessage)) -> io::Result<()> {
        self.outgoing.clear();
        let sequence = self.encode(request, 0);
        self.socket.send(&self.outgoing, 0)?;
        loop {
            self.receive(0)?;
            let mut rest = self.incoming.as_slice();
            while let Some(message) = next_message(&mut rest)? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::Conntrack(message),
                        ..
                    }) => entry(&message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    /// Sends every request and tells the outcome of each, in order.
    pub(super) fn request_all(&mut self, requests: impl IntoIterator<Item = Request>) -> io::Result<Vec<Outcome>> {
        let mut requests = requests.into_iter();
        let mut outcomes = Vec::with_capacity(requests.size_hint().0);
        loop {
            let batch: Vec<Request> = requests.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(outcomes);
            }
            outcomes.extend(self.exchange(&batch)?);
        }
    }

    /// Sends a batch; in halves when the receive buffer is too small for the answers.
    fn exchange(&mut self, batch: &[Request]) -> io::Result<Vec<Outcome>> {
        match self.try_exchange(batch) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && batch.len() > 1 => {
                // The kernel sends no answer before the buffer has been emptied.
                while self.receive(libc::MSG_DONTWAIT).is_ok() {}
                // The whole batch has been handled, but which answers are lost is unknown. Asked again, the kernel says
                // of what it made the first time that it exists.
                let (first, second) = batch.split_at(batch.len() / 2);
                let mut outcomes = self.exchange(first)?;
                outcomes.extend(self.exchange(second)?);
                Ok(outcomes)
            }
            result => result,
        }
    }

    fn try_exchange(&mut self, batch: &[Request]) -> io::Result<Vec<Outcome>> {
        self.outgoing.clear();
        let last = batch.len() - 1;
        let first_sequence = self.sequence.wrapping_add(1);
        for (index, request) in batch.iter().enumerate() {
            // Only failures are answered, but for the last request, whose answer tells that all have been handled.
            self.encode(request, if index == last { NLM_F_ACK } else { 0 });
        }
        self.socket.send(&self.outgoing, 0)?;

        let mut outcomes = vec![Ok(()); batch.len()];
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(unfinished(&outcomes)),
                result => result?,
            }
            let mut rest = self.incoming.as_slice();
            while let Some(message) = next_message(&mut rest)? {
                let index = message.header.sequence_number.wrapping_sub(first_sequence) as usize;
                let (Some(outcome), NetlinkPayload::Error(answer)) = (outcomes.get_mut(index), message.payload) else {
                    continue;
                };
                if let Some(code) = answer.code {
                    *outcome = Err(Errno::from_raw(-code.get()));
                }
                if index == last {
                    return Ok(outcomes);
                }
            }
        }
    }

    /// Appends a request to what is to be sent, and returns its sequence number.
    fn encode(&mut self, request: &Request, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        let start = self.outgoing.len();
        let body = start + header.buffer_len();
        let end = body + Emitable::buffer_len(&request.message);
        header.length = (end - start) as u32;
        header.message_type = request.message.message_type();
        header.flags = NLM_F_REQUEST | request.flags | flags;
        header.sequence_number = self.sequence;

        self.outgoing.resize(end.next_multiple_of(ALIGNMENT), 0);
        header.emit(&mut self.outgoing[start..body]);
        request.message.emit(&mut self.outgoing[body..end]);
        self.sequence
    }

    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        self.incoming.clear();
        self.socket.recv(&mut self.incoming, flags).map(drop)
    }
}

/// Takes the next message off what was received.
fn next_message(rest: &mut &[u8]) -> io::Result<Option<Message>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let message = Message::deserialize(rest).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
    *rest = rest.get(length..).unwrap_or_default();
    Ok(Some(message))
}

/// The kernel stopped before the end of a batch, as it does for lack of a capability: for the reason it gave.
fn unfinished(outcomes: &[Outcome]) -> io::Error {
    match outcomes.iter().find_map(|outcome| outcome.err()) {
        Some(errno) => errno.into(),
        None => io::Error::other("the kernel does not answer on netlink"),
    }
}
