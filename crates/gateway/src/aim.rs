//! What decides where a request goes.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::OnceLock;

use http::HeaderMap;

use crate::http1::head::{self, Head};
use crate::ready::Asked;
use crate::routing::{Destination, Routing};

/// What decides where a request goes.
#[derive(Debug)]
pub(crate) struct Aim<'a> {
    local: Option<SocketAddrV4>,
    /// What is asked, whatever its fields are.
    pub(crate) asked: Asked<'a>,
    text: (&'a [u8], &'a Head),
    fields: OnceLock<HeaderMap>,
}

impl<'a> Aim<'a> {
    /// Returns where a request goes that arrived at an address. Its fields are read from its head once some route asks for them.
    pub(crate) fn new(local: SocketAddr, asked: Asked<'a>, text: &'a [u8], head: &'a Head) -> Self {
        let local = match local {
            SocketAddr::V4(local) => Some(local),
            SocketAddr::V6(_) => None,
        };
        Self { local, asked, text: (text, head), fields: OnceLock::new() }
    }

    /// Returns its fields.
    pub(crate) fn fields(&self) -> &HeaderMap {
        self.fields.get_or_init(|| head::fields(self.text.0, self.text.1))
    }

    /// Whether it arrived at a virtual address.
    pub(crate) fn is_inside(&self, routing: &Routing) -> bool {
        self.local.is_some_and(|local| routing.listener(local).is_some())
    }

    /// Returns where it goes in a table.
    pub(crate) fn find(&self, routing: &Routing) -> Option<Destination> {
        // At a virtual address the service is fixed, whatever the host.
        let inside = self.local.and_then(|local| routing.listener(local)).map(|(to, _)| to);
        inside.or_else(|| {
            let headers = if routing.asks_for_fields() { self.fields() } else { self.asked.headers };
            routing.find(&Asked { headers, ..self.asked })
        })
    }
}
