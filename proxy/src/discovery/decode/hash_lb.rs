//! Load balancing by consistent hashing.

use xds::envoy::config::cluster::v3::cluster::common_lb_config::ConsistentHashingLbConfig;
use xds::envoy::config::cluster::v3::cluster::ring_hash_lb_config::HashFunction as Function;
use xds::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, MaglevLbConfig, RingHashLbConfig,
};

use super::errors::{At, Result, refuse};
use super::value::{bounded, enumeration};
use crate::config::cluster::{Discovery, HashFunction, HashLb, HashTableKind};

/// Largest ring, and Envoy's default for the limit.
const LARGEST_RING: u32 = 8 << 20;
/// Largest table of MAGLEV.
const LARGEST_TABLE: u32 = 5_000_011;

/// The ring of a cluster with policy RING_HASH; the configuration of another policy has no effect.
pub(super) fn ring(config: Option<&LbConfig>) -> Result<HashTableKind> {
    let absent = RingHashLbConfig::default();
    let proto = match config {
        Some(LbConfig::RingHashLbConfig(proto)) => proto,
        _ => &absent,
    };
    let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = proto;
    let function = match enumeration("hash_function", *hash_function).at(RING)? {
        Function::XxHash => HashFunction::XxHash,
        Function::MurmurHash2 => HashFunction::MurmurHash2,
    };
    ring_of_size(*minimum_ring_size, *maximum_ring_size, function).at(RING)
}

const RING: &str = "ring_hash_lb_config";

/// A ring with Envoy's defaults for what is absent.
pub(super) fn ring_of_size(
    minimum: Option<u64>,
    maximum: Option<u64>,
    function: HashFunction,
) -> Result<HashTableKind> {
    let range = (1, LARGEST_RING);
    let minimum = size("minimum_ring_size", minimum, 1024, (0, LARGEST_RING))?;
    let maximum = size("maximum_ring_size", maximum, LARGEST_RING, range)?;
    if minimum > maximum {
        return refuse(
            "minimum_ring_size",
            format!("{minimum} is over maximum_ring_size {maximum}"),
        );
    }
    Ok(HashTableKind::Ring { minimum, maximum, function })
}

/// The table of a cluster with policy MAGLEV; the configuration of another policy has no effect.
pub(super) fn maglev(config: Option<&LbConfig>) -> Result<HashTableKind> {
    match config {
        Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size })) => {
            maglev_of_size(*table_size).at("maglev_lb_config")
        }
        _ => maglev_of_size(None),
    }
}

/// A table with Envoy's default for an absent size.
pub(super) fn maglev_of_size(proto: Option<u64>) -> Result<HashTableKind> {
    let size = size("table_size", proto, 65_537, (0, LARGEST_TABLE))?;
    if !is_prime(size) {
        return refuse("table_size", "must be a prime number");
    }
    Ok(HashTableKind::Maglev { size })
}

/// What both tables have in common.
#[derive(Clone, Copy, Default)]
pub(super) struct Consistent {
    pub(super) use_hostname: bool,
    pub(super) balance_factor: Option<u32>,
}

impl Consistent {
    /// With `table`.
    pub(super) fn into(self, table: HashTableKind) -> HashLb {
        let Self { use_hostname, balance_factor } = self;
        HashLb { table, use_hostname, balance_factor }
    }
}

/// `common_lb_config.consistent_hashing_lb_config`
pub(super) fn consistent_hashing(proto: Option<&ConsistentHashingLbConfig>) -> Result<Consistent> {
    let Some(proto) = proto else { return Ok(Consistent::default()) };
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } = proto;
    Ok(Consistent {
        use_hostname: *use_hostname_for_hashing,
        balance_factor: balance_factor(*hash_balance_factor)?,
    })
}

/// How much of its share an endpoint may carry, if that is bounded.
pub(super) fn balance_factor(proto: Option<u32>) -> Result<Option<u32>> {
    let factor = |factor| bounded("hash_balance_factor", Some(factor), 0, (100, u32::MAX));
    proto.map(factor).transpose()
}

/// As in Envoy: elsewhere, endpoints without a name would all be the same to the hash. The policies of
/// `load_balancing_policy` trust that there are names.
pub(super) fn may_hash_names(common: Option<&CommonLbConfig>, discovery: &Discovery) -> Result<()> {
    let hashing = common.and_then(|common| common.consistent_hashing_lb_config.as_ref());
    let wanted = hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing);
    let strict = matches!(discovery, Discovery::Dns(names) if !names.logical);
    if !wanted || strict {
        return Ok(());
    }
    let field = "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing";
    refuse(field, "works in a cluster of type STRICT_DNS only")
}

fn size(field: &str, proto: Option<u64>, default: u32, range: (u32, u32)) -> Result<u32> {
    let proto = proto.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    bounded(field, proto, default, range)
}

fn is_prime(number: u32) -> bool {
    let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && !divisors.into_iter().any(|divisor| number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && is_prime(5_000_011));
        assert!(!is_prime(65_536) && !is_prime(65_539 * 3));
    }
}
