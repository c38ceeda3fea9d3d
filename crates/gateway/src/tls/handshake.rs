//! The handshake: the client says which host it wants, and is shown that host's certificate.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Certificates;
use super::proofs::PROTOCOL;
use crate::edge::Secured;

/// Shakes hands. Returns the stream, and what is known of it. Which HTTP was agreed on (ALPN, RFC 7301) is told by what
/// the client says first, as without TLS.
///
/// # Errors
/// If the client leaves, is an authority that only looks, speaks no TLS, wants an unknown host, or has no certificate where one is required.
pub(crate) async fn accept(
    stream: TcpStream,
    certificates: &Certificates,
) -> io::Result<(TlsStream<TcpStream>, Secured)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let server_name = hello.server_name().map(str::to_ascii_lowercase);
    let proves = hello.alpn().is_some_and(|mut spoken| spoken.any(|one| one == PROTOCOL));
    let proof = server_name.as_deref().filter(|_| proves).and_then(|host| certificates.proofs.config(host));
    let host = certificates.host(server_name.as_deref());
    let mut stream = start.into_stream(proof.unwrap_or(host.config)).await?;
    if stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) {
        // RFC 8737 §3: the handshake was all.
        stream.shutdown().await?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    // Base64 between colons is a header.
    let client = certificate.and_then(|first| HeaderValue::from_str(&format!(":{}:", STANDARD.encode(first))).ok());
    Ok((stream, Secured { server_name, client, authorities: host.authorities }))
}
