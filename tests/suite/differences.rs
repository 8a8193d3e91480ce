//! Where Outrigger means to differ from Envoy: each with the reason, none by accident.

/// One intended difference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Difference(pub(crate) &'static str);

/// Lets a scenario ask for one of the differences below, and no other.
pub(crate) trait Differs {
    /// Whether this program is the one that departs from what the scenario otherwise asserts.
    fn differs(self, difference: Difference) -> bool;
}

impl Differs for harness::Program {
    fn differs(self, difference: Difference) -> bool {
        if self.is_envoy() {
            eprintln!("intended difference: {}", difference.0);
        }
        self.is_envoy()
    }
}

/// Who gets a sidecar's certificate.
pub(crate) const AN_AGENT_INSIDE: Difference = Difference(
    "Envoy has its certificates from an agent beside it; Outrigger is its own agent and asks the CA itself",
);

/// What a restart begins with while the management server is gone.
pub(crate) const KEPT_ON_DISK: Difference = Difference(
    "Envoy forgets with its process what servers have sent; Outrigger keeps it in --config-cache-dir and starts from it",
);

/// Servers that do not learn.
pub(crate) const REFUSALS_ARE_PACED: Difference = Difference(
    "Envoy refuses the same push as often as a server sends it; Outrigger lets it wait longer and longer for its answer",
);

/// What a state-of-the-world response says that holds nothing but heartbeats.
pub(crate) const RENEWED_IS_NOT_GONE: Difference = Difference(
    "Envoy removes its listeners when a state-of-the-world response only renews their time to live; Outrigger \
     keeps what is renewed",
);

/// Where configuration comes from when the first server does not answer.
pub(crate) const SEVERAL_SERVERS: Difference = Difference(
    "Envoy takes a second server only behind a runtime feature; Outrigger asks the next one of grpc_services",
);

/// A pooled connection may die while a request is on its way to it.
pub(crate) const STALE_CONNECTIONS: Difference = Difference(
    "Envoy answers 503 when a reused upstream connection dies before the response; Outrigger sends \
     the request again on a fresh connection where that cannot deliver it twice",
);

/// What SIGTERM does to requests in flight.
pub(crate) const GRACEFUL_SIGTERM: Difference = Difference(
    "Envoy cuts requests in flight on SIGTERM; Outrigger stops accepting, finishes them within the \
     drain time and exits with 0",
);

/// A TCP connection whose filter chain an update replaces.
pub(crate) const CHAINS_ARE_KEPT: Difference = Difference(
    "Envoy cuts TCP connections --drain-time-s after an update replaced their filter chain; Outrigger \
     lets them go on for as long as their listener keeps its address",
);

/// What an error in a bootstrap names.
pub(crate) const PLACE_OF_ERRORS: Difference = Difference(
    "Envoy names the message of a wrong field, seldom its place; Outrigger names file, line, column \
     and field path",
);

/// How the log tells a request that was refused because memory runs out.
pub(crate) const OVERLOAD_FLAG: Difference = Difference(
    "Envoy sets no response flag on requests refused by stop_accepting_requests; Outrigger sets OM",
);

/// A mirror that does not read what it is sent.
pub(crate) const MIRRORS_NEVER_SLOW: Difference = Difference(
    "Envoy takes a request's body no faster than its mirrors do, so a mirror that hangs holds requests up; \
     Outrigger gives up a mirror for which too much waits",
);

/// An issuer's key server that goes away.
pub(crate) const KEYS_OUTLIVE_THEIR_SERVER: Difference = Difference(
    "Envoy refuses all tokens once fetched keys are older than cache_duration and cannot be fetched again; \
     Outrigger goes on with the last good ones",
);

/// A bad token beside a good one, where a request may also have none.
pub(crate) const NO_BAD_TOKEN_PASSES: Difference = Difference(
    "With allow_missing, Envoy looks only at whether the last token it checks is good; Outrigger refuses a request with \
     any bad one, as Envoy does where a token is required",
);

/// Keys that are too weak, or used for what they are not meant for.
pub(crate) const STRONG_KEYS: Difference = Difference(
    "Envoy takes RSA keys of less than 2048 bits, and an elliptic curve with a hash that RFC 7518 does not join to it; \
     Outrigger does not use such keys",
);

/// What services that decide for the proxy are told besides what they are asked.
pub(crate) const CALLS_ARE_ITS_OWN: Difference = Difference(
    "Envoy tells services that it asks its own address in x-forwarded-for, and x-envoy-internal and \
     x-envoy-expected-rq-timeout-ms; Outrigger asks in its own name and tells them only what it is configured to",
);

/// The rest of a query from which a token is taken.
pub(crate) const QUERIES_STAY_AS_THEY_ARE: Difference = Difference(
    "Envoy decodes what is left of a query from which it takes a token, so that `%20` becomes a space and breaks the \
     request line; Outrigger leaves the other parameters as they are",
);

/// The same key twice in one YAML mapping.
pub(crate) const DUPLICATE_KEYS: Difference =
    Difference("Envoy silently keeps the last of two equal keys; Outrigger refuses them");

/// A bootstrap edited while the proxy runs.
pub(crate) const BOOTSTRAP_IS_WATCHED: Difference = Difference(
    "Envoy reads its bootstrap once; Outrigger takes a changed one while serving, or keeps the last \
     good one and says why",
);

/// Certificates named by `filename` outside of SDS.
pub(crate) const CERTIFICATE_FILES_ARE_WATCHED: Difference = Difference(
    "Envoy reads the certificate files of a static TLS context once; Outrigger takes rotated ones \
     without a restart",
);

/// Which changes of a file are noticed.
pub(crate) const IN_PLACE_WRITES: Difference = Difference(
    "Envoy notices only files moved into place; Outrigger also notices files written in place",
);

/// What a connection costs while nothing moves on it.
pub(crate) const LEAN_SILENCE: Difference = Difference(
    "Envoy keeps a connection's codec and buffers while its client is silent, some 16 KiB; Outrigger \
     puts them away",
);

/// Names of clusters that are no authorities, in checks over HTTP/2.
pub(crate) const AUTHORITIES: Difference = Difference(
    "Envoy sends a cluster's name as :authority of a check even if strict servers refuse that; Outrigger \
     sends such a name as host",
);

/// What only some builds of Envoy have.
pub(crate) const CONTRIB_EXTENSIONS: Difference = Difference(
    "The published Envoy has none of the contrib extensions; Outrigger has PEAK_EWMA, and needs no filter \
     that measures for it",
);

/// Subset selectors some of which have only some of another's keys.
pub(crate) const FALLBACKS_OF_SELECTORS: Difference = Difference(
    "Envoy ignores the fallback_policy of a subset selector whose keys, sorted, begin those of one before \
     it; Outrigger follows it",
);

/// Istio's own extensions.
pub(crate) const ISTIO_FILTERS: Difference = Difference(
    "Istio's filters are part of Istio's build of Envoy, not of the published one; Outrigger has istio.alpn, \
     and passes over what only keeps Istio's books. It runs no Wasm",
);

/// What a cluster costs that nothing is sent to.
pub(crate) const LEAN_CLUSTERS: Difference = Difference(
    "Envoy keeps about 50 KiB for a cluster with one endpoint, used or not; Outrigger keeps its \
     configuration, which mostly is one with that of other clusters",
);

/// A name of a forward proxy has another address.
pub(crate) const OLD_ADDRESSES: Difference = Difference(
    "Envoy's forward proxy sends requests on connections to an address that a name no longer has for as \
     long as they are open; Outrigger sends new requests to the new one",
);

/// Compressed bodies that break off, are garbage, or become too large.
pub(crate) const COMPRESSED_BODIES_HAVE_AN_END: Difference = Difference(
    "Envoy ends a body that it cannot decompress, or that becomes too large, as if it were whole; Outrigger answers \
     such a request with 400 and breaks such a response off",
);

/// Answers that are no gRPC, for browsers.
pub(crate) const GRPC_WEB_MESSAGES: Difference = Difference(
    "Envoy holds an answer that is no gRPC back until it is whole, to make grpc-message of its body; \
     Outrigger sends the grpc-status that its status stands for at once, without a message",
);

/// The buckets of local rate limits, when a table changes.
pub(crate) const TOKENS_ARE_KEPT: Difference = Difference(
    "Envoy fills the buckets of all routes anew whenever their table changes in any way; Outrigger keeps the \
     tokens of those whose limit stays as it is",
);

/// Protocols in which the server speaks first, behind inspectors.
pub(crate) const SERVERS_MAY_SPEAK_FIRST: Difference = Difference(
    "Envoy holds a connection whose server speaks first until listener_filters_timeout; Outrigger \
     reaches the endpoint that silence leads to meanwhile, and lets it speak; a client that is later than \
     the server's greeting is not inspected",
);

/// Who is told what a server says first.
pub(crate) const VERDICT_BEFORE_GREETING: Difference = Difference(
    "Envoy's network filter asks its policies when the client's first byte is there, and until then passes on \
     what a server says first; Outrigger asks them before it reaches the server, whoever speaks first",
);
