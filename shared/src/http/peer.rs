//! Where a request comes from. Addresses that a proxy forwards are believed of trusted proxies only.

use super::error::ApiError;
use crate::config::GatewayConfig;
use crate::error::ErrorKind;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use std::net::{IpAddr, SocketAddr};

/// The headers by which a proxy says for whom it asks.
const FORWARDED: [&str; 3] = ["x-forwarded-for", "x-real-ip", "forwarded"];

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// The caller's address; `None` where the platform in front of us does not say.
    pub(super) ip: Option<IpAddr>,
    /// From this very host, without a proxy.
    pub(super) local: bool,
    /// What the caller sent cannot have been read on its way.
    pub(super) private: bool,
}

impl Peer {
    /// Reads it from a request's head.
    ///
    /// # Errors
    /// 403 `proxy_attribution_required`: there are forwarded addresses, but not from a trusted proxy, or not readable.
    pub(super) fn of(parts: &Parts, config: &GatewayConfig) -> Result<Self, ApiError> {
        let direct = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        Self::from(direct, &parts.headers, config)
    }

    /// Without a direct address – a function – the platform's own API gateway is the proxy: nobody else can reach us, and
    /// it appends the address that it heard from.
    fn from(direct: Option<IpAddr>, headers: &HeaderMap, config: &GatewayConfig) -> Result<Self, ApiError> {
        let trusted = |ip: IpAddr| config.trusted_proxies.iter().any(|net| net.contains(&ip));
        if !FORWARDED.iter().any(|name| headers.contains_key(*name)) {
            let local = direct.is_some_and(|ip| ip.is_loopback());
            return Ok(Self { ip: direct, local, private: local || config.tls_in_front });
        }
        if !direct.is_none_or(trusted) {
            return Err(attribution_required());
        }
        // Each proxy appends whom it heard it from: the newest address that is no proxy of ours is the caller.
        let hops = headers.get_all("x-forwarded-for").iter().rev();
        let mut caller = None;
        'hops: for line in hops {
            let line = line.to_str().map_err(|_| attribution_required())?;
            for hop in line.rsplit(',') {
                let ip = address(hop.trim()).ok_or_else(attribution_required)?;
                caller = Some(ip);
                if !trusted(ip) {
                    break 'hops;
                }
            }
        }
        let ip = caller.ok_or_else(attribution_required)?;
        let https = headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        Ok(Self { ip: Some(ip), local: false, private: https || config.tls_in_front })
    }
}

/// `1.2.3.4`, `1.2.3.4:56`, `::1`, `[::1]` or `[::1]:56`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

fn attribution_required() -> ApiError {
    let message = "Proxy client attribution is required. Put the proxy's address into `gateway.trustedProxies` \
                   and let it send `X-Forwarded-For`.";
    ApiError::new(ErrorKind::Forbidden, message)
        .with_status(StatusCode::FORBIDDEN)
        .with_type("proxy_attribution_required")
        .with_code("proxy_attribution_required")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut out = HeaderMap::new();
        for (name, value) in pairs {
            out.append(*name, value.parse().expect("a header value"));
        }
        out
    }

    fn behind(proxies: &[&str]) -> GatewayConfig {
        let trusted_proxies = proxies.iter().map(|net| net.parse().expect("a network")).collect();
        GatewayConfig { trusted_proxies, ..GatewayConfig::default() }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_loopback_peer_without_forwarded_headers_is_local() {
        let peer = Peer::from(ip("127.0.0.1"), &headers(&[]), &behind(&[]));
        assert_eq!(peer.ok(), Some(Peer { ip: ip("127.0.0.1"), local: true, private: true }));
    }

    #[test]
    fn a_peer_of_the_network_over_plain_http_is_not_private() {
        let peer = Peer::from(ip("192.0.2.7"), &headers(&[]), &behind(&[]));
        assert_eq!(peer.ok(), Some(Peer { ip: ip("192.0.2.7"), local: false, private: false }));
    }

    #[test]
    fn an_untrusted_peer_cannot_name_another_address() {
        for peer in ["127.0.0.1", "192.0.2.7"] {
            let refused = Peer::from(ip(peer), &headers(&[("x-forwarded-for", "10.0.0.1")]), &behind(&[]));
            assert_eq!(
                refused.map_err(|error| error.to_value()["code"].clone()),
                Err("proxy_attribution_required".into())
            );
        }
    }

    #[test]
    fn the_newest_hop_that_is_no_proxy_of_ours_is_the_caller_whatever_stands_before_it() {
        let sent = headers(&[
            ("x-forwarded-for", "1.1.1.1, 203.0.113.9:4711"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
        ]);
        let peer = Peer::from(ip("10.0.0.1"), &sent, &behind(&["10.0.0.0/8"]));
        assert_eq!(peer.ok(), Some(Peer { ip: ip("203.0.113.9"), local: false, private: true }));
    }

    #[test]
    fn a_proxy_on_this_host_does_not_make_its_callers_local() {
        let peer = Peer::from(
            ip("::1"),
            &headers(&[("x-forwarded-for", "127.0.0.1")]),
            &behind(&["::1/128", "127.0.0.0/8"]),
        );
        assert_eq!(peer.ok(), Some(Peer { ip: ip("127.0.0.1"), local: false, private: false }));
    }

    #[test]
    fn in_a_function_the_newest_hop_is_the_caller_whatever_it_claims_to_forward() {
        let sent = headers(&[
            ("x-forwarded-for", "127.0.0.1, 203.0.113.9"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        let peer = Peer::from(None, &sent, &behind(&[]));
        assert_eq!(peer.ok(), Some(Peer { ip: ip("203.0.113.9"), local: false, private: true }));
    }

    #[test]
    fn behind_an_edge_whose_networks_are_known_the_caller_is_whom_the_edge_heard() {
        let edge = behind(&["130.176.0.0/16", "2600:9000:1000::/36"]);
        for (hops, caller) in [
            ("127.0.0.1, 203.0.113.9, 130.176.88.51", "203.0.113.9"),
            ("2001:db8::7, 2600:9000:1000:4::1", "2001:db8::7"),
            ("203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ] {
            let sent = headers(&[("x-forwarded-for", hops), ("x-forwarded-proto", "https")]);
            assert_eq!(Peer::from(None, &sent, &edge).ok().and_then(|peer| peer.ip), ip(caller), "{hops}");
        }
    }

    #[test]
    fn an_unreadable_hop_is_refused() {
        for hop in ["", "unknown", "1.2.3.4, ,", "999.1.1.1"] {
            let mut sent = HeaderMap::new();
            sent.insert("x-forwarded-for", hop.parse().expect("a header value"));
            assert!(Peer::from(ip("10.0.0.1"), &sent, &behind(&["10.0.0.0/8"])).is_err(), "{hop:?}");
        }
    }
}
