//! How many connections may be open: in all, and of one address.
//!
//! This host and the trusted proxies speak for many clients. They have as many places as there are in all.

use ipnet::IpNet;
use shared::config::GatewayConfig;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// File descriptors that are needed beside connections: the store's, the log's, the listener's, and some to spare.
const DESCRIPTORS_BESIDE: u64 = 32;

/// Descriptors of a connection: its own socket, and the one to the model that its turn waits for.
const DESCRIPTORS_EACH: u64 = 2;

/// Which places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Those in all.
    All,
    /// Those of the peer's address.
    Address,
}

impl Full {
    /// Its name in the metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Address => "address",
        }
    }
}

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_address: usize,
    trusted: Vec<IpNet>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of those that are counted; gone with the last one.
    by_address: HashMap<IpAddr, usize>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// Under which address it is counted.
    address: Option<IpAddr>,
}

impl Places {
    /// Those of the settings, as far as `descriptors` – the process' limit, if it has one – go round.
    pub(crate) fn new(config: &GatewayConfig, descriptors: Option<u64>) -> Self {
        let most = descriptors.map_or(config.max_connections, |descriptors| {
            let enough = descriptors.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_EACH;
            usize::try_from(enough.max(1)).unwrap_or(usize::MAX).min(config.max_connections)
        });
        Self {
            most,
            most_of_address: config.max_connections_per_address,
            trusted: config.trusted_proxies.clone(),
            taken: Mutex::default(),
        }
    }

    /// Descriptors that as many connections need.
    pub(crate) fn descriptors(connections: usize) -> u64 {
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        connections.saturating_mul(DESCRIPTORS_EACH).saturating_add(DESCRIPTORS_BESIDE)
    }

    /// How many there are in all.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Takes one.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Full> {
        let peer = peer.to_canonical();
        let is_many = peer.is_loopback() || self.trusted.iter().any(|net| net.contains(&peer));
        let address = (!is_many).then(|| subscriber(peer));
        let mut taken = self.taken();
        if taken.all >= self.most {
            return Err(Full::All);
        }
        if let Some(address) = address {
            let of_address = taken.by_address.entry(address).or_default();
            if *of_address >= self.most_of_address {
                return Err(Full::Address);
            }
            *of_address += 1;
        }
        taken.all += 1;
        Ok(Place { places: Arc::clone(self), address })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(address) = self.address
            && let Some(of_address) = taken.by_address.get_mut(&address)
        {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

/// One subscriber of IPv6 holds a whole /64.
fn subscriber(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize, most_of_address: usize) -> Arc<Places> {
        let trusted = "10.0.0.0/8".parse().map_or_else(|_| Vec::new(), |net| vec![net]);
        let config = GatewayConfig {
            max_connections: most,
            max_connections_per_address: most_of_address,
            trusted_proxies: trusted,
            ..GatewayConfig::default()
        };
        Arc::new(Places::new(&config, None))
    }

    /// How many of so many connections from these addresses in turn find a place.
    fn taken(places: &Arc<Places>, count: usize, from: &[&str]) -> Vec<Place> {
        let ips = from.iter().cycle().filter_map(|ip| ip.parse().ok());
        ips.take(count).filter_map(|ip| places.take(ip).ok()).collect()
    }

    #[test]
    fn there_are_no_more_places_than_in_all_whoever_asks() {
        let places = places(5, 2);
        let held = taken(&places, 9, &["127.0.0.1", "10.0.0.1", "192.0.2.1"]);
        assert_eq!(held.len(), 5);
        assert_eq!(places.take(IpAddr::from([127, 0, 0, 1])).err(), Some(Full::All));
    }

    #[test]
    fn one_address_has_its_own_places_and_an_ipv6_subscriber_is_one_address() {
        let places = places(100, 2);
        let one = taken(&places, 5, &["192.0.2.1"]);
        let subscriber = taken(&places, 5, &["2001:db8::1", "2001:db8::2", "2001:db8::3"]);
        let mapped = taken(&places, 1, &["::ffff:192.0.2.1"]);
        assert_eq!((one.len(), subscriber.len(), mapped.len()), (2, 2, 0));
        assert_eq!(places.take(IpAddr::from([192, 0, 2, 1])).err(), Some(Full::Address));
        assert_eq!(taken(&places, 1, &["192.0.2.2"]).len(), 1);
    }

    #[test]
    fn this_host_and_trusted_proxies_speak_for_many() {
        let places = places(100, 2);
        let many = ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3"];
        assert_eq!(taken(&places, 40, &many).len(), 40);
    }

    #[test]
    fn a_place_that_is_given_back_is_free_and_leaves_nothing_behind() {
        let places = places(2, 1);
        for round in 0..10_u8 {
            let ip = IpAddr::from([192, 0, 2, round]);
            let held = places.take(ip);
            assert!(held.is_ok(), "{round}");
            assert_eq!(places.take(ip).err(), Some(Full::Address), "{round}");
        }
        let taken = places.taken();
        assert_eq!((taken.all, taken.by_address.len()), (0, 0));
    }

    #[test]
    fn there_are_as_many_places_as_descriptors_for_two_sockets_each() {
        let config = GatewayConfig { max_connections: 8000, ..GatewayConfig::default() };
        let most = |descriptors| Places::new(&config, descriptors).most();
        assert_eq!([None, Some(1 << 20), Some(1024), Some(64), Some(8)].map(most), [8000, 8000, 496, 16, 1]);
        assert_eq!(Places::descriptors(8000), 16_032);
    }
}
