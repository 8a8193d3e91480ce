//! Why a response is what it is: Envoy's response flags, as a small bit set.

use std::fmt;

/// A set of response flags (`%RESPONSE_FLAGS%`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

/// Declares the flags in Envoy's order: constant, short name, long name.
macro_rules! flags {
    ($($constant:ident $short:literal $long:literal)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $short, "`, ", $long)]
            pub const $constant: Self = Self(1 << Position::$constant as u32);)*
        }

        #[expect(non_camel_case_types, reason = "named after the constants")]
        enum Position { $($constant,)* }

        /// Every flag with its short and its long name.
        const NAMES: &[(ResponseFlags, &str, &str)] =
            &[$((ResponseFlags::$constant, $short, $long),)*];
    };
}

flags! {
    FAILED_LOCAL_HEALTH_CHECK "LH" "FailedLocalHealthCheck"
    NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream"
    UPSTREAM_REQUEST_TIMEOUT "UT" "UpstreamRequestTimeout"
    LOCAL_RESET "LR" "LocalReset"
    UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset"
    UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure"
    UPSTREAM_CONNECTION_TERMINATION "UC" "UpstreamConnectionTermination"
    UPSTREAM_OVERFLOW "UO" "UpstreamOverflow"
    NO_ROUTE_FOUND "NR" "NoRouteFound"
    DELAY_INJECTED "DI" "DelayInjected"
    FAULT_INJECTED "FI" "FaultInjected"
    RATE_LIMITED "RL" "RateLimited"
    UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "UnauthorizedExternalService"
    RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError"
    DOWNSTREAM_CONNECTION_TERMINATION "DC" "DownstreamConnectionTermination"
    UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "UpstreamRetryLimitExceeded"
    STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout"
    INVALID_ENVOY_REQUEST_HEADERS "IH" "InvalidEnvoyRequestHeaders"
    DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError"
    UPSTREAM_MAX_STREAM_DURATION_REACHED "UMSDR" "UpstreamMaxStreamDurationReached"
    RESPONSE_FROM_CACHE_FILTER "RFCF" "ResponseFromCacheFilter"
    NO_FILTER_CONFIG_FOUND "NFCF" "NoFilterConfigFound"
    DURATION_TIMEOUT "DT" "DurationTimeout"
    UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError"
    NO_CLUSTER_FOUND "NC" "NoClusterFound"
    OVERLOAD_MANAGER "OM" "OverloadManagerTerminated"
    DNS_RESOLUTION_FAILED "DF" "DnsResolutionFailed"
    DROP_OVERLOAD "DO" "DropOverload"
    DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset"
    UNCONDITIONAL_DROP_OVERLOAD "UDO" "UnconditionalDropOverload"
}

impl ResponseFlags {
    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As Envoy numbers them: one bit each.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets the flags of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The flag with this short name, such as `UF`; none if Envoy has none of that name.
    pub fn from_short(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, short, _)| *short == name).map(|(flag, ..)| *flag)
    }

    /// The short names of the flags that are set, in Envoy's order.
    pub fn short_names(self) -> impl Iterator<Item = &'static str> {
        self.set().map(|(_, short, _)| *short)
    }

    /// Appends the short names, joined by commas; false (and nothing written) if no flag is set.
    pub fn write_short(self, out: &mut Vec<u8>) -> bool {
        join(self.short_names(), out)
    }

    /// Appends the long names, joined by commas; false (and nothing written) if no flag is set.
    pub fn write_long(self, out: &mut Vec<u8>) -> bool {
        join(self.set().map(|(.., long)| *long), out)
    }

    fn set(self) -> impl Iterator<Item = &'static (Self, &'static str, &'static str)> {
        let all = if self.is_empty() { &[] } else { NAMES };
        all.iter().filter(move |(flag, ..)| self.contains(*flag))
    }
}

fn join(names: impl Iterator<Item = &'static str>, out: &mut Vec<u8>) -> bool {
    let mut separator = &b""[..];
    for name in names {
        out.extend_from_slice(separator);
        out.extend_from_slice(name.as_bytes());
        separator = b",";
    }
    !separator.is_empty()
}

impl std::ops::BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.insert(other);
    }
}

/// The short names joined by commas, or `-`.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        if self.write_short(&mut text) {
            f.write_str(&String::from_utf8_lossy(&text))
        } else {
            f.write_str("-")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_envoys_order() {
        let flags = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert_eq!(flags.to_string(), "UF,URX");
        let mut long = Vec::new();
        assert!(flags.write_long(&mut long));
        assert_eq!(long, b"UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
        assert_eq!(ResponseFlags::default().to_string(), "-");
    }

    #[test]
    fn every_short_name_leads_back_to_its_flag() {
        for (flag, short, _) in NAMES {
            assert_eq!(ResponseFlags::from_short(short), Some(*flag));
        }
        assert_eq!(ResponseFlags::from_short("XX"), None);
    }

    #[test]
    fn sets_contain_and_intersect() {
        let set = ResponseFlags::NO_ROUTE_FOUND | ResponseFlags::LOCAL_RESET;
        assert!(set.contains(ResponseFlags::LOCAL_RESET));
        assert!(!set.contains(ResponseFlags::LOCAL_RESET | ResponseFlags::RATE_LIMITED));
        assert!(set.intersects(ResponseFlags::LOCAL_RESET | ResponseFlags::RATE_LIMITED));
    }
}
