//! The parser: what it says of any bytes is true of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netpath_common::model::exercise;
use netpath_common::nat::icmp_error::quote;
use netpath_common::parse::{Fragment, Headers, NetworkLayer, parse};

const ETHERNET: usize = 14;

fuzz_target!(|input: &[u8]| {
    let Some((&way, bytes)) = input.split_first() else { return };
    let mut frame = bytes.to_vec();
    let mut headers = Headers::EMPTY;
    let layer = parse(&frame.as_mut_slice(), &mut headers);
    if layer == Ok(NetworkLayer::Ipv4) {
        check(bytes, &headers);
        // Ethernet pads what is short: nothing behind the packet means anything.
        let mut padded = bytes.to_vec();
        padded.extend([0xa5; 46]);
        let mut again = Headers::EMPTY;
        assert_eq!(parse(&padded.as_mut_slice(), &mut again), layer);
        assert_eq!(again, headers, "the padding was read");
    }
    assert_eq!(frame, bytes, "reading changes nothing");
    // What the packet path does with it, by one of its ways, in one of the modes.
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    exercise(&[&[way & 1, way / 2, 0, length], bytes].concat());
});

fn check(bytes: &[u8], headers: &Headers) {
    let end = ETHERNET + headers.total_len as usize;
    assert!(end <= bytes.len(), "it ends behind the frame");
    assert_eq!(headers.transport_at, ETHERNET + usize::from(bytes[ETHERNET] & 0x0f) * 4);
    assert!(headers.transport_at <= headers.payload_at, "the payload begins in the middle of a header");
    assert!(headers.fragment != Fragment::Whole || headers.payload_at <= end, "the payload begins behind the end");
    let key = &headers.key;
    assert_eq!((key.protocol, &key.source[..]), (bytes[23], &bytes[26..30]));
    assert_eq!(&key.destination[..], &bytes[30..34]);
    let mut copy = bytes.to_vec();
    if let Some(quote) = quote(&copy.as_mut_slice(), headers) {
        let inside = headers.transport_at < quote.network_at && quote.network_at < quote.transport_at;
        assert!(inside && quote.transport_at <= end, "{quote:?} isn't inside the error");
    }
}
