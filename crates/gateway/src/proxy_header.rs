//! The header of the PROXY protocol, versions 1 and 2: who passes bytes on says first whose they are (HAProxy's
//! `proxy-protocol.txt`). Load balancers tell the gateway so, and the gateway its instances.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use basalt_model::ProxyProtocol;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with. It is also the length that is always safe to read: no header of version 1 is shorter.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end (§2.1).
const LONGEST_LINE: usize = 107;
/// The longest header of version 2 that is read: addresses take 36 bytes, the rest are notes such as names of certificates.
const LONGEST: usize = 4096;

/// Reads a header, and not one byte more. Returns whose connection it is; `None` if the load balancer speaks for itself, as
/// in its own checks, or for somebody whose address has another form.
///
/// # Errors
/// `InvalidData` if it is no such header; whatever else reading gives.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start != SIGNATURE {
        return read_line(stream, &start).await;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0xF > 1 || length > LONGEST {
        return Err(invalid());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    if command & 0xF == 0 {
        return Ok(None);
    }
    match family {
        // TCP over IPv4 and over IPv6: both addresses, then both ports.
        0x11 => {
            let [a, b, c, d, .., high, low, _, _] = *rest.get(..12).ok_or_else(invalid)? else { return Err(invalid()) };
            Ok(Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into()))
        }
        0x21 => {
            let fields = rest.get(..36).ok_or_else(invalid)?;
            let address: [u8; 16] = fields[..16].try_into().map_err(|_| invalid())?;
            Ok(Some((Ipv6Addr::from(address), u16::from_be_bytes([fields[32], fields[33]])).into()))
        }
        _ => Ok(None),
    }
}

/// Reads the rest of a line of version 1.
async fn read_line(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> io::Result<Option<SocketAddr>> {
    if !start.starts_with(b"PROXY ") {
        return Err(invalid());
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(invalid());
        }
        // What follows belongs to the client.
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| invalid())?;
    let fields: Vec<&str> = text.split(' ').collect();
    match fields[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let address: IpAddr = source.parse().map_err(|_| invalid())?;
            let port = port.parse().map_err(|_| invalid())?;
            if address.is_ipv4() == (family == "TCP4") { Ok(Some((address, port).into())) } else { Err(invalid()) }
        }
        _ => Err(invalid()),
    }
}

/// Returns the header of a connection from `source` to `destination`; without them, of one that the gateway makes for itself.
pub(crate) fn header(version: ProxyProtocol, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let pair = ends.map(|(source, destination)| {
        match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (IpAddr::V4(from), IpAddr::V4(to)),
            // Both have to be of one family.
            (from, to) => (IpAddr::V6(six(from)), IpAddr::V6(six(to))),
        }
    });
    let ports = ends.map_or((0, 0), |(source, destination)| (source.port(), destination.port()));
    match version {
        ProxyProtocol::V1 => match pair {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to)) => {
                let family = if from.is_ipv4() { 4 } else { 6 };
                format!("PROXY TCP{family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
            }
        },
        ProxyProtocol::V2 => {
            let mut addresses = Vec::with_capacity(36);
            let (command, family) = match pair {
                None => (0x20, 0x00),
                Some((from, to)) => {
                    for address in [from, to] {
                        match address {
                            IpAddr::V4(four) => addresses.extend_from_slice(&four.octets()),
                            IpAddr::V6(six) => addresses.extend_from_slice(&six.octets()),
                        }
                    }
                    addresses.extend_from_slice(&ports.0.to_be_bytes());
                    addresses.extend_from_slice(&ports.1.to_be_bytes());
                    (0x21, if from.is_ipv4() { 0x11 } else { 0x21 })
                }
            };
            // 12 or 36 bytes, or none.
            let length = (addresses.len() as u16).to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, &addresses].concat()
        }
    }
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header with something behind it, which must be left.
    async fn read_all(header: &[u8]) -> io::Result<Option<SocketAddr>> {
        let bytes = [header, b"GET /"].concat();
        let mut stream = &bytes[..];
        let result = read(&mut stream).await;
        assert!(result.is_err() || stream == b"GET /", "{stream:?}");
        result
    }

    fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    #[tokio::test]
    async fn headers_say_whose_a_connection_is() {
        let check = async |header: &[u8], expected: Option<&str>| {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(read_all(header).await.unwrap(), expected, "{}", String::from_utf8_lossy(header));
        };
        check(b"PROXY TCP4 192.0.2.1 10.0.0.1 4000 80\r\n", Some("192.0.2.1:4000")).await;
        check(b"PROXY TCP6 2001:db8::1 ::1 4000 80\r\n", Some("[2001:db8::1]:4000")).await;
        check(b"PROXY UNKNOWN\r\n", None).await;
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None).await;
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x0F, 0xA0, 0, 80];
        check(&second(0x21, 0x11, &four), Some("192.0.2.1:4000")).await;
        check(&second(0x21, 0x11, &[&four[..], &[3, 0, 1, 7]].concat()), Some("192.0.2.1:4000")).await;
        check(&second(0x20, 0, &[]), None).await;
        check(&second(0x20, 0x11, &four), None).await;
        check(&second(0x21, 0x31, &[0; 216]), None).await;
        let six: Vec<u8> = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0x0F, 0xA0, 0, 80]].concat();
        check(&second(0x21, 0x21, &six), Some("[::1]:4000")).await;
    }

    #[tokio::test]
    async fn headers_are_written_as_they_are_read() {
        let check = async |ends: Option<(&str, &str)>, line: &str, expected: Option<&str>| {
            let ends = ends.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
            let expected = expected.map(|address| address.parse().unwrap());
            let first = header(ProxyProtocol::V1, ends);
            assert_eq!(String::from_utf8_lossy(&first), line);
            assert_eq!(read_all(&first).await.unwrap(), expected, "{line}");
            assert_eq!(read_all(&header(ProxyProtocol::V2, ends)).await.unwrap(), expected, "{line}");
        };
        let four = "PROXY TCP4 192.0.2.1 10.0.0.1 4000 80\r\n";
        check(Some(("192.0.2.1:4000", "10.0.0.1:80")), four, Some("192.0.2.1:4000")).await;
        check(Some(("[::ffff:192.0.2.1]:4000", "10.0.0.1:80")), four, Some("192.0.2.1:4000")).await;
        let six = "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 4000 80\r\n";
        check(Some(("[2001:db8::1]:4000", "10.0.0.1:80")), six, Some("[2001:db8::1]:4000")).await;
        check(None, "PROXY UNKNOWN\r\n", None).await;
        let second =
            header(ProxyProtocol::V2, Some(("192.0.2.1:4000".parse().unwrap(), "10.0.0.1:80".parse().unwrap())));
        assert_eq!(second[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0x0F, 0xA0, 0, 80]);
        assert_eq!(header(ProxyProtocol::V2, None)[12..], [0x20, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for wrong in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 2001:db8::1 ::1 4000 80\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4000\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 70000 80\r\n",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
            &second(0x31, 0x11, &[0; 12]),
            &second(0x22, 0x11, &[0; 12]),
            &second(0x21, 0x11, &[0; 11]),
            &second(0x21, 0x21, &[0; 12]),
            &second(0x21, 0x21, &[0; 5000]),
            b"PRO",
            b"",
        ] {
            let mut stream = wrong;
            assert!(read(&mut stream).await.is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
