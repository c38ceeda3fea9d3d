//! Members of sets of the firewall, put in and taken out by the kernel's own protocol (nfnetlink, linux/netfilter/nf_tables.h):
//! running `nft` for that takes longer than all else that starting an instance does.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Headers of netlink(7) and nfnetlink: 16 and 4 bytes.
const HEADER: usize = 16;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;

/// The table's family: both IPv4 and IPv6 (`NFPROTO_INET`).
const INET: u8 = 1;

const NESTED: u16 = 1 << 15;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const VALUE: u16 = 1;

/// What is done with members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// They are put in; those that are there already stay.
    Put,
    /// They are taken out, whether they were in or not.
    TakeOut,
}

/// Members of one set: its name, and their keys.
pub(crate) type Members = (&'static str, Vec<Vec<u8>>);

/// Changes members of sets of a table, all or none of them.
///
/// # Errors
/// What the kernel says: without the table or the set, `NotFound`.
pub(crate) fn change(table: &str, sets: &[Members], change: Change) -> io::Result<()> {
    let (batch, expected) = batch(table, sets, change);
    if expected == 0 {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
    let mut answered = 0;
    while answered < expected {
        let (answer, _) = socket.recv_from_full()?;
        for code in codes(&answer) {
            answered += 1;
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
    }
    Ok(())
}

/// Returns the messages, and how many of them will be answered.
fn batch(table: &str, sets: &[Members], change: Change) -> (Vec<u8>, usize) {
    let mut all = message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]);
    let mut answers = 0;
    for (set, keys) in sets.iter().filter(|(_, keys)| !keys.is_empty()) {
        let elements: Vec<u8> = keys
            .iter()
            .flat_map(|key| attribute(ELEMENT | NESTED, &attribute(ELEMENT_KEY | NESTED, &attribute(VALUE, key))))
            .collect();
        let body = [
            attribute(LIST_TABLE, &c_string(table)),
            attribute(LIST_SET, &c_string(set)),
            attribute(LIST_ELEMENTS | NESTED, &elements),
        ]
        .concat();
        // Put in before they are taken out, so that nothing can fail because one is missing.
        all.extend(message(NEW_ELEMENT, REQUEST | ACKNOWLEDGE | CREATE, INET, 0, &body));
        answers += 1;
        if change == Change::TakeOut {
            all.extend(message(DELETE_ELEMENT, REQUEST | ACKNOWLEDGE, INET, 0, &body));
            answers += 1;
        }
    }
    all.extend(message(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]));
    (all, answers)
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + 4 + body.len()) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Neither sequence nor port: one batch, one socket.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Returns the codes of all acknowledgements in what was received: 0, or an error number below 0.
fn codes(mut bytes: &[u8]) -> Vec<i32> {
    const ERROR: u16 = 2;
    let mut codes = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let number = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or_default();
        let length = number(0) as usize;
        if u16::from_ne_bytes([header[4], header[5]]) == ERROR
            && let Some(code) = rest.first_chunk::<4>()
        {
            codes.push(i32::from_ne_bytes(*code));
        }
        if length < HEADER || length.next_multiple_of(4) > bytes.len() {
            break;
        }
        bytes = &bytes[length.next_multiple_of(4)..];
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_form() {
        let (bytes, answers) = batch("t", &[("s", vec![vec![1, 2, 3, 4]]), ("empty", vec![])], Change::TakeOut);
        assert_eq!(answers, 2);
        // Begin 20, end 20; each change: 20, table 8, set 8, list 4 + element 4 + key 4 + value 8.
        assert_eq!(bytes.len(), 20 + 56 + 56 + 20);
        assert_eq!(batch("t", &[("empty", vec![])], Change::Put).1, 0);
        assert_eq!(codes(&message(2, 0, 0, 0, &[])), [0]);
        assert_eq!(codes(&[1, 2, 3]), Vec::<i32>::new());
    }

    /// Needs root.
    #[test]
    fn the_kernel_tells_what_is_missing() {
        let keys = vec![vec![10, 64, 0, 1]];
        let error = change("basalt_no_such_table", &[("egress", keys)], Change::Put).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
