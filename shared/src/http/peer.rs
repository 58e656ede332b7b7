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
    ///
    /// That TLS ends in front is believed of trusted proxies, and not even of them if they say that it was plain HTTP.
    fn from(direct: Option<IpAddr>, headers: &HeaderMap, config: &GatewayConfig) -> Result<Self, ApiError> {
        let trusted = |ip: IpAddr| config.trusted_proxies.iter().any(|net| net.contains(&ip));
        let told = scheme(headers);
        let is_proxy = direct.is_none_or(trusted);
        let by_tls = is_proxy
            && match told {
                Some(scheme) => scheme == Scheme::Https,
                None => config.tls_in_front,
            };
        if !FORWARDED.iter().any(|name| headers.contains_key(*name)) {
            let local = direct.is_some_and(|ip| ip.is_loopback());
            // Somebody on this host who says so himself passes on what came over plain HTTP.
            let private = by_tls || (local && told != Some(Scheme::Http));
            return Ok(Self { ip: direct, local, private });
        }
        if !is_proxy {
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
        Ok(Self { ip: Some(ip), local: false, private: by_tls })
    }
}

/// How a request came to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// What the proxies say of it; `None` if they say nothing. One leg of the way over plain HTTP is enough to read a token.
fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut legs = headers
        .get_all("x-forwarded-proto")
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|leg| leg.trim_ascii().eq_ignore_ascii_case(b"https"))
        .peekable();
    legs.peek()?;
    Some(if legs.all(|is_https| is_https) { Scheme::Https } else { Scheme::Http })
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
    fn that_tls_ends_in_front_is_believed_of_trusted_proxies_alone_and_not_if_they_deny_it() {
        let private = |direct: Option<IpAddr>, sent: &[(&'static str, &'static str)], in_front: bool| {
            let config = GatewayConfig { tls_in_front: in_front, ..behind(&["10.0.0.1/32"]) };
            Peer::from(direct, &headers(sent), &config).map(|peer| peer.private).ok()
        };
        let for_somebody = ("x-forwarded-for", "203.0.113.9");
        for (direct, proto, in_front, expected) in [
            ("192.0.2.7", None, true, false),
            ("192.0.2.7", Some("https"), true, false),
            ("192.0.2.7", Some("https"), false, false),
            ("10.0.0.1", None, true, true),
            ("10.0.0.1", None, false, false),
            ("10.0.0.1", Some("https"), false, true),
            ("10.0.0.1", Some("HTTPS, https"), false, true),
            ("10.0.0.1", Some("http"), true, false),
            ("10.0.0.1", Some("https, http"), true, false),
            ("10.0.0.1", Some(""), true, false),
            ("127.0.0.1", None, false, true),
            ("127.0.0.1", Some("http"), true, false),
        ] {
            let sent: Vec<_> = proto.map(|proto| ("x-forwarded-proto", proto)).into_iter().collect();
            assert_eq!(private(ip(direct), &sent, in_front), Some(expected), "{direct} {proto:?} {in_front}");
            if direct == "10.0.0.1" {
                let forwarded = [&sent[..], &[for_somebody]].concat();
                assert_eq!(private(ip(direct), &forwarded, in_front), Some(expected), "{proto:?} {in_front}");
            }
        }
        // A function is reached through the platform's API gateway alone.
        assert_eq!(private(None, &[], true), Some(true));
        assert_eq!(private(None, &[for_somebody, ("x-forwarded-proto", "http")], true), Some(false));
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
